"""Workers inside the build's own process, one after another: for debugging and for tests."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ...registry.attempt import Attempt
from . import Executor, Handle, Work

if TYPE_CHECKING:
    from ..supervisor import Supervisor

_ONE_AT_A_TIME = threading.Lock()


class _Thread(Handle):
    """A worker in a thread; torch's random numbers belong to the process, so that one runs at a time."""

    def __init__(self, watch: Supervisor) -> None:
        self.watch = watch
        self.code: int | None = None
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        from ..worker import run

        with _ONE_AT_A_TIME:
            self.code = run(self.watch)

    def poll(self) -> int | None:
        return self.code

    def stop(self, now: bool = False) -> None:
        self.watch.signals.append(15)


class Inline(Executor):
    """Runs the worker in this process."""

    type = "inline"

    def start(self, work: Work) -> Handle:
        """Start the worker in a thread."""
        from ..supervisor import Supervisor  # here, since it imports torch

        return _Thread(Supervisor(Attempt(work.attempt)))
