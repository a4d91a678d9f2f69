"""Executors: ways to start workers. Results are learnt from the registry only, never through an executor."""

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
    """A leaf that is to be trained, as far as an executor needs to know it."""

    attempt: Path
    """The folder through which the build and the worker talk; its log.txt takes the worker's output."""
    resources: Resources
    lease: int
    """A file descriptor. A process of this machine should inherit it: as long as it is open, no other build trains the
    same leaf. A worker elsewhere touches the lease's file instead, by itself."""
    gpu_megabytes: float | None = None
    """What a run like this one took of a GPU's memory."""

    @property
    def project(self) -> Path:
        """Folder of the project."""
        return self.attempt.parents[2]


class Handle(ABC):
    """A worker that was started, or is in an engine's queue."""

    host: str = ""
    """The machine that it runs on, where that is known."""
    is_waiting: bool = False
    """Whether it is in a queue still."""
    reason: str = ""
    """Why it ended, where the engine knows more than the exit code, such as `its node was lost`."""
    is_excused: bool = False
    """Whether the engine ended it for reasons of its own, so that it is no crash of the leaf."""

    @abstractmethod
    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while the worker runs."""

    @abstractmethod
    def stop(self, now: bool = False) -> None:
        """Ask the worker to stop at the next step with a checkpoint, or end it now."""


class Executor(Part):
    """Starts a worker for an attempt; the worker's output goes to the attempt's log.txt."""

    outlives: ClassVar[bool] = False
    """Whether what was started goes on without the build, so that `--detach` can be meant."""

    def open(self, project: Path, jobs: int | None, leaves: Sequence[Resources]) -> int:
        """Get ready; return how many leaves may be started at a time, which is `jobs` where it is told.

        An engine with a queue of its own takes them all and lets `jobs` run. Raise UsageError where it is not there.
        """
        return jobs or 1

    def has_room(self, work: Work) -> bool:
        """Tell whether a leaf can be started beside those that run."""
        return True

    @abstractmethod
    def start(self, work: Work) -> Handle:
        """Start `python -m runner.worker ATTEMPT` somewhere. Raise StorageError where the machine refuses."""

    def attach(self, work: Work, job: str) -> Handle | None:
        """Return the handle of a job that an earlier build left in the attempt's job.json; None where it has ended."""
        return None

    def close(self) -> None:
        """Let go of what `open` took; what was to be stopped is stopped."""
