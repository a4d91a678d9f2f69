"""Workers in threads of the build's process, one after another, for debugging and tests."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ...registry.attempt import Attempt
from . import Executor, Handle, Work

if TYPE_CHECKING:
    from ..supervisor import Supervisor

_ONE_AT_A_TIME = threading.Lock()


class _Thread(Handle):
    """A worker in a thread; one runs at a time, since torch's random number generator is global to the process."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.code: int | None = None
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        from ..worker import run

        with _ONE_AT_A_TIME:
            self.code = run(self.supervisor)

    def poll(self) -> int | None:
        return self.code

    def stop(self, now: bool = False) -> None:
        self.supervisor.signals.append(15)


class Inline(Executor):
    """Runs the worker in this process."""

    type = "inline"

    def start(self, work: Work) -> Handle:
        """Start the worker in a thread."""
        from ..supervisor import Supervisor  # here, since it imports torch

        return _Thread(Supervisor(Attempt(work.attempt)))
