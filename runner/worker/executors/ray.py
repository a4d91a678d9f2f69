"""Workers as tasks of a Ray cluster, with or without a file system shared with the build."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import shlex
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import PrivateAttr

from ...errors import MtrunError, Place, UsageError
from ...files import append, remove
from ...project import Project
from ...registry.attempt import TASK, Attempt
from ...registry.registry import Registry
from ...registry.transfer import receive, run_files
from ...specs.job import TrainingJob
from ...specs.spec import Resources
from .. import launch_script
from . import Executor, Handle, Work

LOOK_SECONDS = 0.1
"""Interval at which a task polls its worker."""

KILL_SECONDS = 9.0
"""How long the worker of a cancelled task may take to write a checkpoint."""

LOOPBACK = "127.0.0.1"
"""Address of a local cluster, which other machines cannot reach."""

REACH_SECONDS = 10.0
"""Timeout of the connection to a cluster."""

LOG_BYTES = 20_000
"""Maximum size of the end of the log that is returned from a node without a shared file system."""


def run(lines: str) -> dict[str, Any]:
    """Body of a Ray task: run a worker by shell lines; stop it when the task is cancelled."""
    process = subprocess.Popen(["sh", "-c", lines], start_new_session=True)
    try:
        while process.poll() is None:  # Ray cancels between two lines of Python, not within a blocking call
            time.sleep(LOOK_SECONDS)
        return {"code": process.returncode, "host": socket.gethostname()}
    except KeyboardInterrupt:  # how Ray cancels a task
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(KILL_SECONDS)
        raise
    finally:
        process.kill()


def run_apart(task: bytes, needed: dict[str, dict[str, bytes]], folder: str, python: str) -> dict[str, Any]:
    """Body of a Ray task on a node without a shared file system: train in `folder` and return the files of the run.

    Of a failed leaf, return the problems in error.json and the end of the log. `needed` are the files of the runs that
    the leaf is made of, by id; only these stay on the node.
    """
    order = replace(TrainingJob.from_bytes(task, Place(TASK)), project=Path(folder))
    registry = Registry(Project(order.project).registry)
    attempt = Attempt(registry.attempt(order.id))
    for id, files in needed.items():
        if not registry.find(id):
            receive(registry, id, files)
    attempt.begin(order.to_bytes(), order.replaces)
    try:
        result = run(_lines(attempt, order.project, order.model.resources, python))
        log = attempt.log.read_bytes()[-LOG_BYTES:] if attempt.log.exists() else b""
        return result | {"files": run_files(registry, order.id), "problems": attempt.problems(),
                         "progress": attempt.progress(), "log": log.decode(errors="replace")}
    finally:
        registry.drop(order.id)
        remove(attempt.folder)


def _lines(attempt: Attempt, project: Path, resources: Resources, python: str) -> str:
    """Return the shell lines that start an attempt's worker, which stops when the task's process ends."""
    start = launch_script.lines(attempt.write_token(), project, resources, python, parent='"$PPID"')
    return f"attempt={shlex.quote(str(attempt.folder))}\n{start}"


@contextlib.contextmanager
def _keep_signal_handlers() -> Iterator[None]:
    """Restore the signal handlers after the block, since Ray sets its own."""
    is_main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM) if is_main}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


class _Task(Handle):
    """A task of a Ray cluster."""

    def __init__(self, ray: Any, reference: Any, work: Work, is_apart: bool) -> None:
        self.ray, self.reference, self.attempt, self.is_apart = ray, reference, Attempt(work.attempt), is_apart
        self.project = work.project
        self.code: int | None = None

    def poll(self) -> int | None:
        if self.code is None and self.ray.wait([self.reference], timeout=0)[0]:
            self.code = self._end()
        return self.code

    def _end(self) -> int:
        """Return the exit code of a task that has ended; commit its run where the node has its own file system."""
        errors = self.ray.exceptions
        try:
            result = self.ray.get(self.reference)
        except errors.TaskCancelledError:
            return 128 + signal.SIGTERM
        except errors.OutOfMemoryError as error:
            self.reason = f"Ray ended it for want of memory: {str(error).splitlines()[0]}"
            return -signal.SIGKILL
        except errors.RayTaskError as error:
            append(self.attempt.log, str(error))
            self.reason = f"its task failed: {str(error).strip().splitlines()[-1]}"
            return 1
        except errors.RayError as error:
            self.is_excused, self.reason = True, f"its node was lost ({type(error).__name__})"
            return -signal.SIGKILL
        self.host, code = result["host"], int(result["code"])
        if code == launch_script.UNSHARED:
            message = launch_script.unshared_message(self.host, self.attempt.folder)
            self.reason = f"{message}, or `executor.folder` be set"
        return self._receive(result, code) if self.is_apart else code

    def _receive(self, result: dict[str, Any], code: int) -> int:
        """Commit the run that `run_apart` returned, or record its problems in the attempt; return the exit code."""
        append(self.attempt.log, result["log"].rstrip())
        self.attempt.report(result["progress"])
        order = TrainingJob.read(self.attempt.folder / TASK)
        try:
            if result["files"]:
                receive(Registry(Project(self.project).registry), order.id, result["files"], order.replaces)
                remove(self.attempt.folder)
                return 0
        except MtrunError as error:
            result["problems"] = [problem.render() for problem in error.problems]
            code = error.exit_code
        if result["problems"]:
            self.attempt.fail(code, result["problems"])
        return code

    def stop(self, now: bool = False) -> None:
        if self.code is None:
            self.ray.cancel(self.reference, force=now)


class Ray(Executor):
    """Tasks of a Ray cluster, with what a leaf's `resources` ask for."""

    type = "ray"

    address: str = "local"
    """Where the cluster is, such as `10.0.0.1:6379`; `auto` for the one that runs here, `local` to start one."""
    folder: str = ""
    """A folder of the nodes, where they do not share this machine's: they train in it, data and parts are in it as in a
    project, and what is made travels back. Left out: the nodes see the project's own folder."""
    python: str = ""
    """The Python of the nodes; left out: the same path as here."""

    _ray: Any = PrivateAttr(default=None)
    _redirected: contextlib.ExitStack = PrivateAttr(default_factory=contextlib.ExitStack)
    _cluster: dict[str, float] = PrivateAttr(default_factory=dict)

    def open(self, project: Path, jobs: int | None, leaves: Sequence[Resources]) -> int:
        """Connect to the cluster; return how many leaves fit on its cores. Raise UsageError where that fails."""
        self._redirected.enter_context(contextlib.redirect_stdout(io.StringIO()))  # Ray prints about lost nodes
        with _keep_signal_handlers():
            self._ray = self._connect()
        self._cluster = self._ray.cluster_resources()
        most = max((leaf.cores for leaf in leaves), default=1)
        return jobs or max(1, int(self._cluster.get("CPU", 1)) // most)

    def _connect(self) -> Any:
        """Return the module `ray`, connected to the cluster. Raise UsageError."""
        host, _, port = self.address.removeprefix("ray://").rpartition(":")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if self.address == "local" or host == LOOPBACK:
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # else Ray listens on an external address
        try:
            if port.isdecimal():
                socket.create_connection((host, int(port)), REACH_SECONDS).close()  # Ray itself would try for minutes
            ray = importlib.import_module("ray")
            ray.init(self.address, log_to_driver=False, logging_level="ERROR")
        except ImportError:
            raise UsageError("Ray is not installed: `pip install 'mtrun[ray]'`") from None
        except (OSError, RuntimeError, ValueError) as error:
            raise UsageError(f"no Ray cluster at `{self.address}`: {str(error).splitlines()[0]}") from None
        return ray

    def start(self, work: Work) -> Handle:
        """Start a task, without retries by Ray."""
        resources, attempt = work.resources, Attempt(work.attempt)
        wants_gpu = resources.device != "cpu" and "GPU" in self._cluster
        options: dict[str, Any] = {
            "num_cpus": resources.cores, "max_retries": 0,
            "max_calls": 0,  # a Ray process is reused for other leaves, since it keeps no state of them
            "num_gpus": resources.gpus if resources.gpus is not None else int(wants_gpu),
            "memory": resources.memory and resources.memory * 1_000_000, "name": attempt.name(),
        }
        if self.folder:
            order, registry = TrainingJob.read(attempt.folder / TASK), Registry(Project(work.project).registry)
            needed = {id: run_files(registry, id) for id in order.made_of()}
            reference = self._task(run_apart, options).remote(order.to_bytes(), needed, self.folder, self.python)
        else:
            reference = self._task(run, options).remote(_lines(attempt, work.project, resources, self.python))
        return _Task(self._ray, reference, work, bool(self.folder))

    def _task(self, function: Any, options: dict[str, Any]) -> Any:
        return self._ray.remote(**options)(function)

    def close(self) -> None:
        """Disconnect from the cluster; one that was started here ends."""
        with self._redirected:
            if self._ray:
                self._ray.shutdown()
