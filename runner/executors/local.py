"""Workers as processes of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from ..files import reported
from . import Executor, Handle


class _Process(Handle):
    """A worker in a session of its own, so that Ctrl-C reaches it through the build alone."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def poll(self) -> int | None:
        return self.process.poll()

    def stop(self, now: bool = False) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL if now else signal.SIGTERM)


class Local(Executor):
    """One process a leaf."""

    type = "local"

    def start(self, attempt: Path, threads: int, lease: int) -> Handle:
        """Start the worker with a fixed number of threads."""
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        with reported("start a worker in", attempt), (attempt / "log.txt").open("ab") as log:
            return _Process(subprocess.Popen(
                [sys.executable, "-m", "runner.worker", str(attempt), str(os.getpid())],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, pass_fds=(lease,),
                start_new_session=True,
            ))
