"""Many commands at a time in one project, some of which are killed; what they print and return is checked."""

from __future__ import annotations

import contextlib
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

WRONG = ("Traceback", "a bug in mtrun")
"""Texts that no command may print."""

LAST = ('"event": "done"', "stopped; run the same command again")
"""Texts of which one is the last thing that a build prints."""

STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)

LIMIT_SECONDS = 300
"""How long processes may take to end by themselves, on a busy machine."""

RETRIES = 1
"""How often a build restarts a worker that crashed; the default of `--retries`."""


@dataclass(frozen=True)
class Loop:
    """A command that is started again whenever it has ended."""

    arguments: Callable[[random.Random], Sequence[str]]
    """Returns the arguments of the next command."""
    codes: tuple[int, ...] = (0,)
    """Exit codes of a command that nobody disturbed."""
    pause: float = 0.0
    """Longest time between two commands, in seconds."""


@dataclass
class Command:
    """A running command."""

    arguments: Sequence[str]
    process: subprocess.Popen[bytes]
    output: Path
    signal: int = 0
    """The last signal that was sent to it."""
    workers_killed: int = 0


@dataclass(frozen=True)
class Worker:
    """A worker process of the project."""

    pid: int
    parent: int
    attempt: str


@dataclass
class Chaos:
    """Commands in loops in one project, and what was wrong with them."""

    root: Path
    loops: dict[str, Loop]
    chance: random.Random
    kill_seconds: float = 1.0
    """Mean time between two kills."""
    most_kills: float = math.inf
    """Number of kills after which commands may go on in peace."""
    edit: Callable[[random.Random], None] = lambda chance: None
    """Changes files as a user might, once for every kill."""
    broken: str = ""
    """Python code that is run in every command before it starts."""
    problems: list[str] = field(default_factory=list)
    ended: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Number of commands that have ended, by kind and exit code."""
    kills: Counter[str] = field(default_factory=Counter)
    """Number of signals, by what they were sent to."""
    trained: int = 0
    """Number of leaves of which builds said that they were trained."""
    _running: dict[str, Command] = field(default_factory=dict)
    _not_before: dict[str, float] = field(default_factory=dict)
    _next_kill: float = 0.0
    _started: int = 0

    @property
    def temporary(self) -> Path:
        """Folder for temporary files of the commands; its path in their environment marks them."""
        return self.root.parent / f"{self.root.name}-temporary"

    def finished(self, kind: str) -> int:
        """Return how many commands of a kind have ended without having been killed."""
        return sum(count for (other, code), count in self.ended.items() if other == kind and code >= 0)

    def run(self, is_enough: Callable[[], bool]) -> None:
        """Run the loops until it is enough; then kill all commands, and wait until their workers have ended."""
        self.temporary.mkdir()
        try:
            while not is_enough():
                self._step()
        finally:
            for name, command in self._running.items():
                command.process.kill()
                command.signal = signal.SIGKILL
                self.kills[f"{_kind(name)} at the end"] += 1
            for name, command in self._running.items():
                command.process.wait(LIMIT_SECONDS)
                self._judge(name, command)
            self._running.clear()
        deadline = time.monotonic() + LIMIT_SECONDS
        while left := list(self._processes()):
            if time.monotonic() > deadline:
                self.problems.append(f"processes are left: {left}")
                break
            time.sleep(0.05)
        self.problems += [f"{path} was left" for path in self.temporary.glob("mtrun-bug-*")]

    def _step(self) -> None:
        """Start what has ended again, kill something where it is time, and look at the workers."""
        for name, loop in self.loops.items():
            command = self._running.get(name)
            if command and command.process.poll() is not None:
                self._judge(name, command)
                del self._running[name]
                self._not_before[name] = time.monotonic() + self.chance.uniform(0, loop.pause)
            if name not in self._running and time.monotonic() >= self._not_before.get(name, 0):
                self._running[name] = self._start(loop.arguments(self.chance))
        workers = list(self._workers())
        twice = [attempt for attempt, count in Counter(worker.attempt for worker in workers).items() if count > 1]
        self.problems += [f"two workers at a time: {attempt}" for attempt in twice]
        if time.monotonic() >= self._next_kill and self.kills.total() < self.most_kills:
            self._next_kill = time.monotonic() + self.chance.expovariate(1 / self.kill_seconds)
            self._kill(*self.chance.choice(list(self._running.items())), workers)
            self.edit(self.chance)
        time.sleep(0.05)

    def _start(self, arguments: Sequence[str]) -> Command:
        self._started += 1
        output = self.temporary / f"{self._started}.txt"
        code = f"{self.broken}\nfrom runner.cli import main\nmain()"
        with output.open("wb") as file:
            process = subprocess.Popen([sys.executable, "-c", code, *arguments], cwd=self.root,
                                       env={**os.environ, "TMPDIR": str(self.temporary)}, start_new_session=True,
                                       stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        return Command(arguments, process, output)

    def _kill(self, name: str, command: Command, workers: Sequence[Worker]) -> None:
        """Send a signal to a command, to its workers, or to both."""
        own = [worker.pid for worker in workers if worker.parent == command.process.pid]
        ways = ["alone", "alone", "with workers"] if own else ["alone"]
        ways += ["worker"] * bool(own) + ["stop"] * (b'"planned"' in command.output.read_bytes())
        way = self.chance.choice(ways)
        if way == "worker":
            command.workers_killed += _send(self.chance.choice(own), signal.SIGKILL)
        elif way == "stop":  # its handler of signals is in place
            command.signal = self.chance.choice((signal.SIGINT, signal.SIGTERM))
            command.process.send_signal(command.signal)
        else:
            command.signal = signal.SIGKILL
            command.process.kill()
            for pid in own if way == "with workers" else ():
                _send(pid, signal.SIGKILL)
        self.kills[f"{_kind(name)} {way}" if command.arguments[0] == "build" else _kind(name)] += 1

    def _judge(self, name: str, command: Command) -> None:
        """Record what is wrong with a command that has ended."""
        code, text = command.process.returncode, command.output.read_text()
        codes = {*self.loops[name].codes}
        if command.signal == signal.SIGKILL:
            codes.add(-signal.SIGKILL)
        elif command.signal:
            codes |= {*STOPPED}
            if any(last in text for last in LAST):  # Python was ending, and had taken its handlers back
                codes |= {-signal.SIGINT, -signal.SIGTERM}
        if command.workers_killed > RETRIES:
            codes.add(1)
        if code not in codes or any(wrong in text for wrong in WRONG):
            self.problems.append(f"exit code {code} of {' '.join(command.arguments)}:\n{text}")
        self.ended[_kind(name), code] += 1
        self.trained += text.count('"event": "trained"')
        command.output.unlink()

    def _processes(self) -> Iterator[int]:
        """Yield the numbers of all processes that the commands have left, workers included."""
        mark = f"TMPDIR={self.temporary}".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    yield int(folder.name)

    def _workers(self) -> Iterator[Worker]:
        """Yield the worker processes of the project."""
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if "runner.worker" in words and words[4].startswith(f"{self.root}/"):
                    status = (folder / "stat").read_text().rpartition(")")[2].split()
                    yield Worker(int(folder.name), int(status[1]), words[4])


def _kind(loop: str) -> str:
    """Return the kind of a loop: `build` of `build-1`."""
    return loop.partition("-")[0]


def _send(pid: int, number: int) -> bool:
    """Send a signal; return False where the process has ended already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False
