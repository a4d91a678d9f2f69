"""What the tests of all engines share: many short leaves, builds from a command line, what a registry holds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from projects import project

from runner.build.build import Build
from runner.build.scheduler import Scheduler
from runner.plan.planner import make_plan
from runner.worker.executors.inline import Inline

MODEL = 'kind = "model"\nextends = "sum.toml"\n'
SHORT = "[train]\nepochs = 1\nsteps = 2\n"
LONGER = "[train]\nepochs = 3\nsteps = 150\n[resources]\ncheckpoint_seconds = 0\n"


def many(root: Path, leaves: int, settings: str = SHORT) -> Path:
    """Make a project whose `specs/many.toml` is a sweep of so many leaves."""
    sweep = f'[sweep]\n"train.seed" = {list(range(1, leaves + 1))}\n'
    return project(root, many=MODEL + settings + sweep)


def inline(root: Path, leaves: int, settings: str = SHORT) -> Path:
    """Make such a project and build it in this process: what all engines must come to."""
    many(root, leaves, settings)
    plan = make_plan(root, [root / "specs" / "many.toml"], "demo")
    list(Build(plan, Scheduler(plan.registry, root, Inline(), jobs=1), root / "results").events())
    return root


def contents(root: Path) -> dict[str, bytes]:
    """Return all bytes that must not depend on how they came about."""
    runs = [path for path in (root / "registry").glob("[0-9a-f]*/*") if path.name not in ("manifest.json", "log.txt")]
    results = [path for path in (root / "results").glob("**/*.json") if path.name != "costs.json"]
    return {str(path.relative_to(root)): path.read_bytes() for path in [*runs, *results]}


class Building:
    """A build in a process of its own."""

    def __init__(self, root: Path, *arguments: str, spec: str = "many") -> None:
        command = [sys.executable, "-c", "from runner.cli import main; main()", "build", f"specs/{spec}.toml", "--json"]
        self.root = root
        self.process = subprocess.Popen([*command, *arguments], cwd=root, text=True, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE)
        self.seen: list[dict[str, Any]] = []

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield events as they come."""
        assert self.process.stdout
        for text in self.process.stdout:
            self.seen.append(json.loads(text))
            yield self.seen[-1]

    def until(self, kind: str, holds: Callable[[dict[str, Any]], bool] = lambda event: True) -> dict[str, Any]:
        """Return the next event of a kind."""
        for event in self.events():
            if event["event"] == kind and holds(event):
                return event
        raise AssertionError(f"no {kind}: {self.seen[-3:]} {self.error()}")

    def end(self) -> int:
        """Return the exit code."""
        for _ in self.events():
            pass
        return self.process.wait(600)

    def error(self) -> str:
        """Return what it said on standard error."""
        assert self.process.stderr
        return self.process.stderr.read()

    def count(self, kind: str) -> int:
        """Return how many events of a kind were seen."""
        return [event["event"] for event in self.seen].count(kind)


def await_clearing(root: Path) -> None:
    """Wait until all work in progress is cleared away, which the last worker may be at still."""
    for _ in patiently(f"left over in {root}"):
        if not any(root.glob("registry/.attempts/*")):
            break


def workers(root: Path) -> dict[str, int]:
    """Return the process of each worker of a project, by the id of its leaf."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if b"runner.worker" in words and str(root).encode() in words[words.index(b"runner.worker") + 1]:
                found[Path(words[words.index(b"runner.worker") + 1].decode()).name] = int(path.parent.name)
    return found


def kill_a_worker(root: Path, id: str = "") -> str:
    """Kill the worker of a leaf, or any one, once there is one; return the id of its leaf."""
    there: dict[str, int] = {}
    for _ in patiently(f"no worker of {id or 'any leaf'}"):
        there = workers(root)
        if there.keys() & {id} if id else there:
            break
    id = id or next(iter(there))
    os.kill(there[id], signal.SIGKILL)
    return id


def patiently(what: str, seconds: float = 600) -> Iterator[None]:
    """Yield again and again; raise AssertionError where that goes on for too long even for a machine that is busy."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(0.1)
    raise AssertionError(what)
