"""Crews: the other ranks of a leaf as processes that its worker starts, watches and ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch.distributed as dist

from ..training.distributed import LOOPBACK, ProcessGroup


class RankProcesses:
    """Processes of this machine that train a leaf together with the one that starts them."""

    def __init__(self, attempt: Path, count: int) -> None:
        """Start the ranks from 1 to `count` - 1, each with its number, the count and where to meet."""
        self.count = count
        self._is_closed = False
        listening = socket.create_server((LOOPBACK, 0))
        port = listening.getsockname()[1]
        self.store = _store(port, count, wait_for_workers=False, master_listen_fd=listening.detach())
        self.said = [tempfile.TemporaryFile() for _ in range(1, count)]  # noqa: SIM115
        """What each says of its failure."""
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-P", "-m", "runner.worker", *map(str, (attempt, os.getpid(), number, count, port))],
                stdin=subprocess.DEVNULL, stdout=file, close_fds=False,  # so that the build's lease is theirs, too
            ) for number, file in enumerate(self.said, 1)]

    def join(self) -> ProcessGroup:
        """Return the ranks, seen from the first one, once all are there."""
        return ProcessGroup.joined(0, self.count, self.store)

    def loss(self) -> tuple[int, str] | None:
        """Return the exit code of a rank that failed, negative for a signal, and why; None where none did."""
        codes = [(code, number) for number, process in enumerate(self.processes) if (code := process.poll())]
        if self._is_closed or not codes:
            return None
        code, number = min(codes)  # a killed one first: others may fail for want of it
        who = f"process {number + 2} of {self.count}"
        if code < 0:
            return code, f"{who} ended: signal {-code} ({signal.strsignal(-code)})"
        self.said[number].seek(0)
        return code, self.said[number].read().decode(errors="replace").strip() or f"{who} ended: exit code {code}"

    def close(self) -> None:
        """End those that still run."""
        self._is_closed = True
        for process in self.processes:
            process.kill()
            process.wait()


def join(number: int, count: int, port: int) -> ProcessGroup:
    """Join the process group of a worker as one of its other ranks."""
    return ProcessGroup.joined(number, count, _store(port, count))


def _store(port: int, count: int, **options: Any) -> Any:
    """Return the store through which ranks find each other; `master_listen_fd` makes it here."""
    is_master = "master_listen_fd" in options
    return dist.TCPStore(LOOPBACK, port, count, is_master, **options)  # type: ignore[attr-defined]
