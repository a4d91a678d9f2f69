"""Workers as jobs of a Slurm cluster, in one job array per set of equal resources."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from pydantic import Field, PrivateAttr

from ...errors import StorageError, UsageError
from ...registry.attempt import TASK, Attempt
from ...specs.spec import Resources
from .. import launch_script
from . import Executor, Handle, Work

NAME = "mtrun"
"""Name of all jobs."""

ARRAY = 1000
"""Maximum number of jobs in one array, as Slurm's default MaxArraySize."""

SOON_SECONDS = 0.5
"""Shortest interval between two queries of Slurm."""

NOTICE_SECONDS = 60
"""How long before its time limit a worker is signalled to write a checkpoint; at most a quarter of the limit."""

LOST_SECONDS = 60.0
"""Time after which a job that Slurm does not list counts as lost."""

LIVE = {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "STOPPED", "REQUEUED", "RESIZING", "SIGNALING",
        "STAGE_OUT", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"}

END_REASONS = {"TIMEOUT": "its time was over", "PREEMPTED": "a more urgent job took its place",
               "NODE_FAIL": "its node was lost", "BOOT_FAIL": "its node did not start",
               "OUT_OF_MEMORY": "it took more memory than was asked for",
               "CANCELLED": "its job was cancelled", "DEADLINE": "its deadline was over"}

EXCUSED_STATES = {"TIMEOUT", "PREEMPTED", "NODE_FAIL", "BOOT_FAIL"}


def _run(*command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)


class _Job(Handle):
    """A job of an array; `id` is such as `12_3`, and empty before submission."""

    def __init__(self, work: Work, queue: _Queue, id: str = "") -> None:
        self.work, self.queue, self.id = work, queue, id
        self.state = "PENDING"
        self.known = time.monotonic()
        self.code: int | None = None

    @property
    def is_waiting(self) -> bool:  # type: ignore[override]
        """Whether it still waits in the queue."""
        return self.state == "PENDING"

    def poll(self) -> int | None:
        if self.code is None:
            self.queue.update()
        if self.code is None and not (self.work.attempt / TASK).exists():
            self.code = 0  # a worker that has committed removes its folder, which is seen before Slurm's state
        return self.code

    def stop(self, now: bool = False) -> None:
        if self.code is None:
            self.queue.stop(self)  # Slurm sends SIGTERM first, and SIGKILL `KillWait` seconds later

    def end(self, state: str) -> None:
        """Set exit code, host and reason of a job that has ended in a state, unless its code is known already."""
        if self.code is not None:
            return
        details = _run("scontrol", "--oneliner", "show", "job", self.id).stdout
        codes = re.search(r" ExitCode=(\d+):(\d+)", details)
        host = re.search(r" BatchHost=(\S+)", details)
        code, number = map(int, codes.groups()) if codes else (0 if state == "COMPLETED" else 1, 0)
        self.host = host[1] if host else self.host
        self.is_excused = state in EXCUSED_STATES
        self.reason = END_REASONS.get(state, "")
        if code == launch_script.UNSHARED:
            self.reason = launch_script.unshared_message(self.host, self.work.attempt)
        self.code = -number if number else code
        if state == "CANCELLED":
            self.code = 1  # somebody cancelled it, who does not want it retried
        elif not self.code and state != "COMPLETED":
            self.code = -signal.SIGKILL


@dataclass
class _Queue:
    """All jobs of one build; `update` submits and cancels in batches."""

    executor: Slurm
    jobs: int | None = None
    """Maximum number of jobs that run at a time; None for no limit."""
    new: list[_Job] = field(default_factory=list)
    live: dict[str, _Job] = field(default_factory=dict)
    to_cancel: list[_Job] = field(default_factory=list)
    """Jobs to be cancelled at the next update."""
    updated: float = 0.0
    """Time of the last query of the states."""
    seconds: float = SOON_SECONDS
    """Minimum time between two queries of the states."""
    listed_jobs: set[str] = field(default_factory=set)
    listed: float = 0.0
    """Ids of all mtrun jobs in Slurm's queue, and the time when they were listed."""

    def stop(self, job: _Job) -> None:
        """Cancel a job at the next update; one that was not submitted yet ends at once."""
        if job in self.new:
            self.new.remove(job)
            job.code = -signal.SIGTERM
        else:
            self.to_cancel.append(job)

    def queued_or_running(self) -> set[str]:
        """Return the ids of all mtrun jobs that wait or run, at most `SOON_SECONDS` old."""
        if time.monotonic() - self.listed > SOON_SECONDS and shutil.which("squeue"):
            output = _run("squeue", "--noheader", "--array", f"--name={NAME}", "--format=%i").stdout
            self.listed_jobs, self.listed = set(output.split()), time.monotonic()
        return self.listed_jobs

    def update(self) -> None:
        """Submit new jobs, cancel unwanted ones and, where it is due, query the states of all."""
        self.submit()
        self.cancel()
        if self.live and time.monotonic() - self.updated > self.seconds:
            self.updated = time.monotonic()
            self.seconds = min(self.executor.poll_seconds, self.seconds * 1.5)
            self._query_states()

    def _query_states(self) -> None:
        """Query the states of all jobs; keep the old ones where `squeue` fails."""
        done = _run("squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%N", f"--jobs={_ids(self.live)}")
        if done.returncode and "Invalid job id" not in done.stderr:
            return
        now = time.monotonic()
        for row in done.stdout.splitlines():
            id, state, host = row.strip().split("|")
            if job := self.live.get(id):
                job.state, job.host, job.known = state, host, now
                if state not in LIVE:
                    del self.live[id]
                    job.end(state)
        for id, job in list(self.live.items()):
            if now - job.known > LOST_SECONDS:
                del self.live[id]
                job.code, job.is_excused = -signal.SIGKILL, True
                job.reason = "Slurm knows nothing of its job any more"

    def submit(self) -> None:
        """Submit new jobs, in arrays of equal resources."""
        new, self.new = self.new, []
        total = len(new)
        for jobs in _groups(new):
            limit = max(1, round(self.jobs * len(jobs) / total)) if self.jobs else None
            try:
                self._submit(jobs, limit)
            except StorageError as error:
                for job in jobs:
                    job.code, job.reason = 1, str(error)
        if new:
            self.seconds = SOON_SECONDS

    def _submit(self, jobs: Sequence[_Job], limit: int | None) -> None:
        """Submit one array and record the job id in each attempt. Raise StorageError."""
        done = _run("sbatch", "--parsable", stdin=self.executor.script([job.work for job in jobs], limit))
        if done.returncode:
            raise StorageError(f"sbatch refused it: {' '.join(done.stderr.split())}")
        array = done.stdout.strip().partition(";")[0]
        for number, job in enumerate(jobs):
            job.id, job.known = f"{array}_{number}", time.monotonic()
            self.live[job.id] = job
            with contextlib.suppress(StorageError):  # without it, a later build cannot attach to the job
                Attempt(job.work.attempt).record_job(self.executor.type, job.id)

    def cancel(self) -> None:
        """Cancel jobs: a waiting one ends at once, a running one writes its checkpoint first."""
        jobs, self.to_cancel = self.to_cancel, []
        if jobs:
            _run("scancel", "--quiet", *(job.id for job in jobs))
            self.seconds = SOON_SECONDS


def _groups(jobs: Sequence[_Job]) -> Iterator[list[_Job]]:
    """Yield groups of jobs with equal resources, of at most `ARRAY` jobs, each in the original order."""
    def resources(job: _Job) -> str:
        return job.work.resources.model_dump_json()

    for _, group in groupby(sorted(jobs, key=resources), resources):
        equal = list(group)
        for start in range(0, len(equal), ARRAY):
            yield equal[start : start + ARRAY]


def _ids(jobs: dict[str, _Job]) -> str:
    """Return the array ids of jobs, as an argument of `squeue --jobs`."""
    return ",".join(sorted({id.partition("_")[0] for id in jobs}))


class Slurm(Executor):
    """Jobs of a Slurm cluster, with what a leaf's `resources` ask for; all machines share the project's folder."""

    type = "slurm"
    outlives = True

    python: str = ""
    """The Python of the nodes; left out: the same path as here."""
    setup: tuple[str, ...] = ()
    """Lines of shell before the worker starts, such as `module load cuda`."""
    poll_seconds: float = Field(default=5.0, ge=0.1)
    """How often Slurm is asked at most."""

    _queue: _Queue = PrivateAttr()

    def model_post_init(self, context: object) -> None:
        """Create an empty queue."""
        self._queue = _Queue(self)

    def open(self, project: Path, jobs: int | None, leaves: Sequence[Resources]) -> int:
        """Accept all leaves, of which Slurm runs `jobs` at a time. Raise UsageError where Slurm is not available."""
        if missing := [name for name in ("sbatch", "squeue", "scontrol", "scancel") if not shutil.which(name)]:
            raise UsageError(f"there is no Slurm on this machine: {', '.join(missing)} not found")
        done = _run("scontrol", "ping")
        if done.returncode:
            raise UsageError(f"Slurm does not answer: {' '.join((done.stderr or done.stdout).split())}")
        self._queue.jobs = jobs
        return 1_000_000

    def start(self, work: Work) -> Handle:
        """Add a leaf to the next array."""
        job = _Job(work, self._queue)
        self._queue.new.append(job)
        return job

    def attach(self, work: Work, job: str) -> Handle | None:
        """Return the handle of a job that still waits or runs."""
        if job not in self._queue.queued_or_running():
            return None
        handle = _Job(work, self._queue, job)
        self._queue.live[job] = handle
        return handle

    def close(self) -> None:
        """Cancel the jobs that were to be stopped."""
        self._queue.cancel()

    def script(self, works: Sequence[Work], limit: int | None) -> str:
        """Return the batch script of an array; its leaves have equal resources, which its head requests."""
        first, tokens = works[0], [Attempt(work.attempt).write_token() for work in works]
        options = [f"--array=0-{len(works) - 1}{f'%{limit}' if limit else ''}", *self._options(first)]
        lines = launch_script.lines('"$2"', first.project, first.resources, self.python, self.setup)
        return "\n".join([
            "#!/bin/sh", *(f"#SBATCH {option}" for option in options),
            f"set -- {' '.join(f'{work.attempt.name} {token}' for work, token in zip(works, tokens, strict=True))}",
            "shift $((2 * SLURM_ARRAY_TASK_ID))", f'attempt={shlex.quote(str(first.attempt.parent))}/"$1"', lines,
        ])

    def _options(self, work: Work) -> Iterator[str]:
        """Yield the `sbatch` options of one leaf."""
        resources = work.resources
        yield from (f"--job-name={NAME}", "--no-requeue", "--ntasks=1", "--output=/dev/null", f"--chdir={work.project}",
                    f"--cpus-per-task={resources.cores}")
        if resources.gpus:
            yield f"--gres=gpu:{resources.gpus}"
        if resources.memory:
            yield f"--mem={resources.memory}M"
        if resources.minutes:
            yield from (f"--time={resources.minutes}", f"--signal=B:TERM@{min(NOTICE_SECONDS, 15 * resources.minutes)}")
        if resources.partition:
            yield f"--partition={resources.partition}"
        if resources.account:
            yield f"--account={resources.account}"
        yield from resources.extra
