"""Workers inside the build's own process, one after another: for debugging and for tests."""

from __future__ import annotations

import contextlib
from pathlib import Path

from . import Executor, Handle


class _Ended(Handle):
    """A worker that ran to its end when it was started."""

    def __init__(self, code: int) -> None:
        self.code = code

    def poll(self) -> int | None:
        return self.code

    def stop(self, now: bool = False) -> None:
        return


class Inline(Executor):
    """Runs the worker at once, in this process."""

    type = "inline"

    def start(self, attempt: Path, threads: int) -> Handle:
        """Run the worker to its end."""
        from ..worker import run  # here, since it imports torch

        with (attempt / "log.txt").open("a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            return _Ended(run(attempt))
