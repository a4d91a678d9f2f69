"""Workers started by a command line such as `ssh`, on hosts that share the project's folder."""

from __future__ import annotations

import shlex
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, PrivateAttr

from ...files import reported
from ...registry.attempt import Attempt
from ...specs.spec import Resources
from .. import launch_script
from . import Executor, Handle, Work

UNREACHED = 255
"""Exit code of `ssh` for a failed connection."""


class _Remote(Handle):
    """A local process of the command line, which ends with its worker."""

    def __init__(self, process: subprocess.Popen[bytes], host: str, attempt: Path, executor: Command) -> None:
        self.process, self.host, self.attempt, self.executor = process, host, attempt, executor
        self._has_ended = False

    def poll(self) -> int | None:
        code = self.process.poll()
        if code is not None and not self._has_ended:
            self._has_ended = True
            self.executor.release(self.host, code)
            if code == UNREACHED:
                self.reason = f"no connection to {self.host}"
            elif code == launch_script.UNSHARED:
                self.reason = launch_script.unshared_message(self.host, self.attempt)
        return code

    def stop(self, now: bool = False) -> None:
        Attempt(self.attempt).ask_to_stop()  # signals do not reach the other machine
        if now and self.process.poll() is None:
            self.process.kill()


class Command(Executor):
    """One process of a command line a leaf, on the host where the fewest are."""

    type = "command"

    template: str = "ssh {host} {command}"
    """The command line; `{command}` stands for one argument, a line of shell that starts the worker."""
    hosts: tuple[str, ...] = Field(min_length=1)
    """Names that `{host}` stands for; all share the project's folder."""
    leaves: int = Field(default=1, ge=1)
    """Leaves at a time on one host."""
    python: str = ""
    """The Python of the hosts; left out: the same path as here."""

    _busy: Counter[str] = PrivateAttr(default_factory=Counter)
    _failures: Counter[str] = PrivateAttr(default_factory=Counter)

    def open(self, project: Path, jobs: int | None, leaves: Sequence[Resources]) -> int:
        """Return how many leaves run at a time on all hosts."""
        return min(jobs or self.leaves * len(self.hosts), self.leaves * len(self.hosts))

    def start(self, work: Work) -> Handle:
        """Start the worker on the least busy host."""
        host = min(self._usable_hosts(), key=lambda name: self._busy[name])
        attempt = Attempt(work.attempt)
        lines = launch_script.lines(attempt.write_token(), work.project, work.resources, self.python)
        shell = f"sh -c {shlex.quote(f'attempt={shlex.quote(str(work.attempt))}; {lines}')}"
        command = [word.replace("{host}", host).replace("{command}", shell) for word in shlex.split(self.template)]
        with reported("start a worker in", work.attempt), attempt.log.open("ab") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                       pass_fds=(work.lease,), start_new_session=True)
        self._busy[host] += 1
        return _Remote(process, host, work.attempt, self)

    def has_room(self, work: Work) -> bool:
        """Return whether a host is free, of those that failed least often."""
        return any(self._busy[host] < self.leaves for host in self._usable_hosts())

    def _usable_hosts(self) -> list[str]:
        """Return the hosts that failed least often."""
        least = min(self._failures[host] for host in self.hosts)
        return [host for host in self.hosts if self._failures[host] == least]

    def release(self, host: str, code: int) -> None:
        """Count one leaf less on a host, and a failure where the exit code is one of the host."""
        self._busy[host] -= 1
        self._failures[host] += code in (UNREACHED, launch_script.UNSHARED)
