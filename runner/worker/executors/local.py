"""Workers as processes on this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import PrivateAttr

from ...errors import Problem, UsageError
from ...files import reported
from ...machine import lacks_gpu
from ...specs.spec import Resources
from .. import gpus
from ..gpus import GpuAllocator
from . import Executor, Handle, Work


class _Process(Handle):
    """A worker in its own session, so that Ctrl-C reaches it only through the build."""

    def __init__(self, process: subprocess.Popen[bytes], release: Callable[[], None]) -> None:
        self.process, self._release = process, release
        self.host = socket.gethostname()

    def poll(self) -> int | None:
        code = self.process.poll()
        if code is not None:
            self._release()
            self._release = lambda: None
        return code

    def stop(self, now: bool = False) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL if now else signal.SIGTERM)


def _torch_sees_gpu() -> bool:
    """Return whether torch can use a GPU, which the driver's tools may not tell of."""
    import torch  # slow

    return torch.cuda.is_available()


class Local(Executor):
    """One process a leaf, each with its threads and, where this machine has GPUs, with a GPU or a share of one."""

    type = "local"
    _devices: GpuAllocator = PrivateAttr(default_factory=lambda: GpuAllocator({}))

    def open(self, project: Path, jobs: int | None, leaves: Sequence[Resources]) -> int:
        """Query the GPUs; return how many leaves fit on the CPU. Raise UsageError where a leaf needs more GPUs."""
        for leaf in leaves:
            if lacks_gpu(leaf.device) and not _torch_sees_gpu():
                raise UsageError(Problem(f"a leaf is to be trained on `{leaf.device}` (resources.device), and torch "
                                         "sees no such GPU on this machine",
                                         hint="resources.device = \"auto\" takes a GPU where there is one"))
        self._devices = GpuAllocator(gpus.query_memory())
        most = max((leaf.gpus or 0 for leaf in leaves), default=0)
        if most > len(self._devices.sizes):
            raise UsageError(f"a leaf wants {most} GPUs (resources.gpus), and this machine has "
                             f"{len(self._devices.sizes) or 'none'}")
        cores = max((leaf.threads * leaf.processes for leaf in leaves), default=1)
        return jobs or max(1, len(os.sched_getaffinity(0)) // cores)

    def has_room(self, work: Work) -> bool:
        """Return whether enough GPUs are free for a leaf."""
        return self._devices.select(self._gpu_count(work), work.gpu_megabytes) is not None

    def start(self, work: Work) -> Handle:
        """Start the worker with its number of threads, on its allocated GPUs."""
        gpu_count, threads = self._gpu_count(work), str(work.resources.threads)
        names = self._devices.select(gpu_count, work.gpu_megabytes) or ()
        environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        if gpu_count or work.resources.gpus == 0:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(names)
        with reported("start a worker in", work.attempt), (work.attempt / "log.txt").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "runner.worker", str(work.attempt), str(os.getpid())],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, pass_fds=(work.lease,),
                start_new_session=True,
            )
        self._devices.allocate(names, work.gpu_megabytes)
        return _Process(process, lambda: self._devices.release(names, work.gpu_megabytes))

    def _gpu_count(self, work: Work) -> int:
        """Return how many GPUs to allocate to a leaf; none where its spec names a device such as `cuda:1`."""
        if not self._devices.sizes or work.resources.device not in ("auto", "cuda"):
            return 0
        return 1 if work.resources.gpus is None else work.resources.gpus
