"""Workers as jobs of a Slurm cluster, one array of jobs for leaves of equal resources."""

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
"""What all jobs are called."""

ARRAY = 1000
"""Most jobs in one array; Slurm refuses more where it was not told otherwise."""

SOON_SECONDS = 0.5
"""How often Slurm is asked while something is about to end."""

NOTICE_SECONDS = 60
"""How long before its time is over a worker is told to write a checkpoint; a quarter of a short time."""

LOST = 60.0
"""Seconds after which a job is gone that Slurm does not know."""

LIVE = {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "STOPPED", "REQUEUED", "RESIZING", "SIGNALING",
        "STAGE_OUT", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"}

ENDS = {"TIMEOUT": "its time was over", "PREEMPTED": "a more urgent job took its place",
        "NODE_FAIL": "its node was lost", "BOOT_FAIL": "its node did not start",
        "OUT_OF_MEMORY": "it took more memory than was asked for",
        "CANCELLED": "its job was cancelled", "DEADLINE": "its deadline was over"}

EXCUSES = {"TIMEOUT", "PREEMPTED", "NODE_FAIL", "BOOT_FAIL"}


def _run(*command: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, input=given, capture_output=True, text=True, check=False)


class _Job(Handle):
    """A job of an array; `id` is such as `12_3`, and empty until it is submitted."""

    def __init__(self, work: Work, queue: _Queue, id: str = "") -> None:
        self.work, self.queue, self.id = work, queue, id
        self.state = "PENDING"
        self.known = time.monotonic()
        self.code: int | None = None

    @property
    def is_waiting(self) -> bool:  # type: ignore[override]
        """Whether it is in the queue still."""
        return self.state == "PENDING"

    def poll(self) -> int | None:
        if self.code is None:
            self.queue.look()
        if self.code is None and not (self.work.attempt / TASK).exists():
            self.code = 0  # a worker that has committed clears its folder: no need to wait for Slurm to say it
        return self.code

    def stop(self, now: bool = False) -> None:
        if self.code is None:
            self.queue.stop(self)  # Slurm tells the worker first, and ends it `KillWait` seconds later

    def end(self, state: str) -> None:
        """Take the state in which the job ended; ask how where the registry does not tell."""
        if self.code is not None:
            return
        said = _run("scontrol", "--oneliner", "show", "job", self.id).stdout
        codes = re.search(r" ExitCode=(\d+):(\d+)", said)
        host = re.search(r" BatchHost=(\S+)", said)
        code, number = map(int, codes.groups()) if codes else (0 if state == "COMPLETED" else 1, 0)
        self.host = host[1] if host else self.host
        self.is_excused = state in EXCUSES
        self.reason = ENDS.get(state, "")
        if code == launch_script.UNSHARED:
            self.reason = launch_script.unshared(self.host, self.work.attempt)
        self.code = -number if number else code
        if state == "CANCELLED":
            self.code = 1  # whoever did that does not want it tried again
        elif not self.code and state != "COMPLETED":
            self.code = -signal.SIGKILL


@dataclass
class _Queue:
    """All jobs of one build: what is to be submitted or cancelled is so at the next look, all at once."""

    executor: Slurm
    jobs: int | None = None
    """How many run at a time; None for as many as Slurm likes."""
    new: list[_Job] = field(default_factory=list)
    live: dict[str, _Job] = field(default_factory=dict)
    unwanted: list[_Job] = field(default_factory=list)
    """Jobs that are to be cancelled."""
    looked: float = 0.0
    seconds: float = SOON_SECONDS
    """How long to wait before the next look."""
    others: set[str] = field(default_factory=set)
    listed: float = 0.0
    """Jobs that were in the queue, and when."""

    def stop(self, job: _Job) -> None:
        """Have a job cancelled at the next look; one that was not submitted yet is not any more."""
        if job in self.new:
            self.new.remove(job)
            job.code = -signal.SIGTERM
        else:
            self.unwanted.append(job)

    def known(self) -> set[str]:
        """Return the jobs that are in the queue or run, as they were a moment ago."""
        if time.monotonic() - self.listed > SOON_SECONDS and shutil.which("squeue"):
            said = _run("squeue", "--noheader", "--array", f"--name={NAME}", "--format=%i").stdout
            self.others, self.listed = set(said.split()), time.monotonic()
        return self.others

    def look(self) -> None:
        """Submit, cancel, and ask for the states of all jobs where that is due."""
        self.submit()
        self.cancel()
        if self.live and time.monotonic() - self.looked > self.seconds:
            self.looked = time.monotonic()
            self.seconds = min(self.executor.poll_seconds, self.seconds * 1.5)
            self._ask()

    def _ask(self) -> None:
        """Take the states of all jobs; where Slurm gives no answer, they are as they were."""
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
            if now - job.known > LOST:
                del self.live[id]
                job.code, job.is_excused = -signal.SIGKILL, True
                job.reason = "Slurm knows nothing of its job any more"

    def submit(self) -> None:
        """Submit what is new as arrays of equal resources."""
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
        """Submit one array, and write down which job is whose. Raise StorageError."""
        done = _run("sbatch", "--parsable", given=self.executor.script([job.work for job in jobs], limit))
        if done.returncode:
            raise StorageError(f"sbatch refused it: {' '.join(done.stderr.split())}")
        array = done.stdout.strip().partition(";")[0]
        for number, job in enumerate(jobs):
            job.id, job.known = f"{array}_{number}", time.monotonic()
            self.live[job.id] = job
            with contextlib.suppress(StorageError):  # a build that finds it again is all that is lost
                Attempt(job.work.attempt).record_job(self.executor.type, job.id)

    def cancel(self) -> None:
        """Cancel what is not wanted: a waiting job is gone at once, a running one writes its checkpoint."""
        unwanted, self.unwanted = self.unwanted, []
        if unwanted:
            _run("scancel", "--quiet", *(job.id for job in unwanted))
            self.seconds = SOON_SECONDS


def _groups(jobs: Sequence[_Job]) -> Iterator[list[_Job]]:
    """Yield jobs of equal resources, no more at a time than an array takes; their order is kept in each group."""
    def asked(job: _Job) -> str:
        return job.work.resources.model_dump_json()

    for _, group in groupby(sorted(jobs, key=asked), asked):
        alike = list(group)
        for start in range(0, len(alike), ARRAY):
            yield alike[start : start + ARRAY]


def _ids(jobs: dict[str, _Job]) -> str:
    """Return the arrays of some jobs as `squeue` takes them."""
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
        """Begin with an empty queue."""
        self._queue = _Queue(self)

    def open(self, project: Path, jobs: int | None, leaves: Sequence[Resources]) -> int:
        """Take all leaves, of which Slurm lets `jobs` run. Raise UsageError where there is no Slurm."""
        if missing := [name for name in ("sbatch", "squeue", "scontrol", "scancel") if not shutil.which(name)]:
            raise UsageError(f"there is no Slurm on this machine: {', '.join(missing)} not found")
        done = _run("scontrol", "ping")
        if done.returncode:
            raise UsageError(f"Slurm does not answer: {' '.join((done.stderr or done.stdout).split())}")
        self._queue.jobs = jobs
        return 1_000_000

    def start(self, work: Work) -> Handle:
        """Put a leaf into the next array."""
        job = _Job(work, self._queue)
        self._queue.new.append(job)
        return job

    def attach(self, work: Work, job: str) -> Handle | None:
        """Return the handle of a job that is still in the queue or runs."""
        if job not in self._queue.known():
            return None
        found = _Job(work, self._queue, job)
        self._queue.live[job] = found
        return found

    def close(self) -> None:
        """Cancel what is to be cancelled."""
        self._queue.cancel()

    def script(self, works: Sequence[Work], limit: int | None) -> str:
        """Return the script of an array: its head asks for the resources of its leaves, which are all equal."""
        first, tokens = works[0], [Attempt(work.attempt).write_token() for work in works]
        options = [f"--array=0-{len(works) - 1}{f'%{limit}' if limit else ''}", *self._options(first)]
        lines = launch_script.lines('"$2"', first.project, first.resources, self.python, self.setup)
        return "\n".join([
            "#!/bin/sh", *(f"#SBATCH {option}" for option in options),
            f"set -- {' '.join(f'{work.attempt.name} {token}' for work, token in zip(works, tokens, strict=True))}",
            "shift $((2 * SLURM_ARRAY_TASK_ID))", f'attempt={shlex.quote(str(first.attempt.parent))}/"$1"', lines,
        ])

    def _options(self, work: Work) -> Iterator[str]:
        """Yield what is asked of Slurm for one leaf."""
        asked = work.resources
        yield from (f"--job-name={NAME}", "--no-requeue", "--ntasks=1", "--output=/dev/null", f"--chdir={work.project}",
                    f"--cpus-per-task={asked.cores}")
        if asked.gpus:
            yield f"--gres=gpu:{asked.gpus}"
        if asked.memory:
            yield f"--mem={asked.memory}M"
        if asked.minutes:
            yield from (f"--time={asked.minutes}", f"--signal=B:TERM@{min(NOTICE_SECONDS, 15 * asked.minutes)}")
        if asked.partition:
            yield f"--partition={asked.partition}"
        if asked.account:
            yield f"--account={asked.account}"
        yield from asked.extra
