"""The other ranks of a leaf, as processes that its worker starts, watches and ends."""

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
    """Ranks 1 to `count` - 1 of a leaf, as processes on the machine of rank 0."""

    def __init__(self, attempt: Path, count: int) -> None:
        """Start the ranks, each with its number, `count` and the port of the TCPStore."""
        self.count = count
        self._is_closed = False
        server = socket.create_server((LOOPBACK, 0))
        port = server.getsockname()[1]
        self.store = _store(port, count, wait_for_workers=False, master_listen_fd=server.detach())
        self.outputs = [tempfile.TemporaryFile() for _ in range(1, count)]  # noqa: SIM115
        """Output of each process, where it prints its error."""
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-P", "-m", "runner.worker", *map(str, (attempt, os.getpid(), number, count, port))],
                stdin=subprocess.DEVNULL, stdout=file, close_fds=False,  # so that they inherit the build's lease
            ) for number, file in enumerate(self.outputs, 1)]

    def join(self) -> ProcessGroup:
        """Return the process group of rank 0 once all ranks have joined."""
        return ProcessGroup.joined(0, self.count, self.store)

    def failure(self) -> tuple[int, str] | None:
        """Return exit code (negative for a signal) and message of a failed rank; None where none failed."""
        codes = [(code, number) for number, process in enumerate(self.processes) if (code := process.poll())]
        if self._is_closed or not codes:
            return None
        code, number = min(codes)  # a killed one first, since others may have failed because of it
        rank = f"process {number + 2} of {self.count}"
        if code < 0:
            return code, f"{rank} ended: signal {-code} ({signal.strsignal(-code)})"
        self.outputs[number].seek(0)
        return code, self.outputs[number].read().decode(errors="replace").strip() or f"{rank} ended: exit code {code}"

    def close(self) -> None:
        """Kill the processes."""
        self._is_closed = True
        for process in self.processes:
            process.kill()
            process.wait()


def join(number: int, count: int, port: int) -> ProcessGroup:
    """Join the process group of a worker as one of its other ranks."""
    return ProcessGroup.joined(number, count, _store(port, count))


def _store(port: int, count: int, **options: Any) -> Any:
    """Return the TCPStore of the ranks; with `master_listen_fd` this process hosts it."""
    is_master = "master_listen_fd" in options
    return dist.TCPStore(LOOPBACK, port, count, is_master, **options)  # type: ignore[attr-defined]
