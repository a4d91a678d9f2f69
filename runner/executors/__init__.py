"""Executors: ways to start workers. Results are learnt from the registry only, never through an executor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from ..parts import Part


class Handle(ABC):
    """A worker that was started."""

    @abstractmethod
    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while the worker runs."""

    @abstractmethod
    def stop(self, now: bool = False) -> None:
        """Ask the worker to stop at the next step with a checkpoint, or end it now."""


class Executor(Part):
    """Starts a worker for an attempt; the worker's output goes to the attempt's log.txt."""

    @abstractmethod
    def start(self, attempt: Path, threads: int, lease: int) -> Handle:
        """Start `python -m runner.worker ATTEMPT` somewhere. Raise StorageError where the machine refuses.

        `lease` is a file descriptor. A process of this machine should inherit it: as long as it is open, no other
        build trains the same leaf. A worker elsewhere touches the lease's file instead, by itself.
        """
