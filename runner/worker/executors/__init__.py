"""Executors: ways to start workers. Results come from the registry only, never through an executor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ...part import Part
from ...specs.spec import Resources


@dataclass(frozen=True)
class Work:
    """A leaf to be trained, as an executor sees it."""

    attempt: Path
    """The folder through which build and worker exchange files; the worker's output goes to its log.txt."""
    resources: Resources
    lease: int
    """File descriptor of the lease. A process on this machine should inherit it: while it is open, no other build
    trains the same leaf. A worker on another machine touches the lease's file instead, without help of the executor."""
    gpu_megabytes: float | None = None
    """Peak GPU memory of a similar run; None where there is none."""

    @property
    def project(self) -> Path:
        """Folder of the project."""
        return self.attempt.parents[2]


class Handle(ABC):
    """A worker that was started, or waits in an engine's queue."""

    host: str = ""
    """Host name of the machine that it runs on, where known."""
    is_waiting: bool = False
    """Whether it still waits in a queue."""
    reason: str = ""
    """Why it ended, where the engine knows more than the exit code, such as `its node was lost`."""
    is_excused: bool = False
    """Whether the engine ended it, such as by preemption, so that it does not count as a crash of the leaf."""

    @abstractmethod
    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while the worker runs."""

    @abstractmethod
    def stop(self, now: bool = False) -> None:
        """Ask the worker to stop with a checkpoint at the next step, or kill it now."""


class Executor(Part):
    """Starts a worker for an attempt; the worker's output goes to the attempt's log.txt."""

    outlives: ClassVar[bool] = False
    """Whether workers continue without the build, so that `--detach` is possible."""

    def open(self, project: Path, jobs: int | None, leaves: Sequence[Resources]) -> int:
        """Connect to the engine; return how many leaves may be started at a time, `jobs` where it is given.

        An engine with a queue accepts all leaves and runs `jobs` at a time. Raise UsageError where it is unavailable.
        """
        return jobs or 1

    def has_room(self, work: Work) -> bool:
        """Return whether a leaf can be started beside the running ones."""
        return True

    @abstractmethod
    def start(self, work: Work) -> Handle:
        """Start `python -m runner.worker ATTEMPT` somewhere. Raise StorageError where that fails."""

    def attach(self, work: Work, job: str) -> Handle | None:
        """Return the handle of a job that an earlier build recorded in job.json; None where it has ended."""
        return None

    def close(self) -> None:
        """Release the resources of `open`; carry out pending stops."""
