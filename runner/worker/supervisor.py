"""Supervise training in a worker: progress, log and trackers, stopping on signals, and the other ranks."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch

from ..errors import MtrunError, Stopped
from ..files import append, remove
from ..registry import lease
from ..registry.attempt import Attempt
from ..specs.job import TrainingJob
from ..training import memory
from ..training.distributed import ProcessGroup
from ..training.trainer import State, Trainer, TrainerCallback
from .rank_processes import RankProcesses, join
from .trackers import Tracking

PROGRESS_SECONDS = 0.5

LOOK_SECONDS = 1.0
"""How often a worker checks whether its build is still there."""

PATIENCE_SECONDS = 20.0
"""How long a worker whose build is gone may take to write a checkpoint."""

ERROR_SECONDS = 3.0
"""How long a worker may take to fail by itself where another rank has failed."""


@dataclass
class Rank(TrainerCallback):
    """One process of a leaf in training: stops all ranks together where a signal asked one of them to."""

    attempt: Attempt
    signals: list[int] = field(default_factory=list)
    """The signals that asked to stop."""
    ranks: ProcessGroup = field(default_factory=ProcessGroup)

    def tick(self) -> None:
        """Raise Stopped on all ranks where one of them was asked to stop."""
        if number := self.ranks.agree(self.signals[0] if self.signals else 0):
            raise Stopped(number)

    def stop(self, number: int, frame: FrameType | None = None) -> None:
        """Take a signal, which asks for a checkpoint."""
        self.signals.append(number)

    def begin(self) -> None:
        """Called before the data are read."""

    def gather(self, count: int) -> ProcessGroup:
        """Return the process group of `count` ranks once all of them are there."""
        return self.ranks

    def follow(self, job: TrainingJob, trainer: Trainer) -> None:
        """Called before the first step."""

    def stopped(self, error: Stopped) -> int:
        """Return the exit code of a process that was stopped."""
        return 0

    def failed(self, code: int, problems: list[str]) -> None:
        """Called where training failed, with the exit code."""

    def finished(self) -> None:
        """Called once the run is in the registry."""

    def close(self) -> None:
        """Called when the process is about to end: other ranks end."""


@dataclass
class OtherRank(Rank):
    """A rank that the first one started; it writes nothing."""

    number: int = 1
    count: int = 2
    port: int = 0
    """Where the ranks meet."""

    def gather(self, count: int) -> ProcessGroup:
        """Join the process group and return it."""
        self.ranks = join(self.number, self.count, self.port)
        return self.ranks

    def failed(self, code: int, problems: list[str]) -> None:
        """Print the problems, which the first rank reads."""
        print("\n\n".join(problems))

    def guard(self, parent: int) -> None:
        """End this process once the first rank is gone. Runs in a thread of its own."""
        while os.getppid() == parent:
            time.sleep(LOOK_SECONDS)
        os._exit(128 + signal.SIGTERM)


@dataclass
class Supervisor(Rank):
    """The first rank: reports progress, log and errors into the attempt's folder and starts the other ranks."""

    steps: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    tracking: Tracking | None = None
    others: RankProcesses | None = None
    _reported: float = 0.0

    def report(self, state: State) -> None:
        """Report to trackers and, at most every half second, into progress.json."""
        if self.tracking:
            self.tracking.log_new_epochs(state.history)
        now = time.monotonic()
        if now - self._reported >= PROGRESS_SECONDS:
            self._reported = now
            dev = state.history[-1]["dev"]["overall"] if state.history else None
            self.attempt.report({"step": state.step, "steps": self.steps, "epoch": len(state.history), "overall": dev,
                                 **self._usage()})

    def say(self, text: str) -> None:
        """Append a line to the attempt's log."""
        append(self.attempt.log, text)

    def begin(self) -> None:
        """Report the machine before there is any progress."""
        progress = {key: value for key, value in self.attempt.progress().items() if key != "ended"}
        self.attempt.report({**progress, **self._usage()})

    def gather(self, count: int) -> ProcessGroup:
        """Start the other ranks and return the process group once all are there."""
        if count > 1:
            self.others = RankProcesses(self.attempt.folder, count)
            self.ranks = self.others.join()
        return self.ranks

    def follow(self, job: TrainingJob, trainer: Trainer) -> None:
        """Take note of the number of steps and the device; open the trackers."""
        self.steps, self.device, self.tracking = trainer.steps, trainer.device, Tracking(job, self.say)

    def stopped(self, error: Stopped) -> int:
        """Return the exit code of a worker that was stopped."""
        return error.exit_code

    def failed(self, code: int, problems: list[str]) -> None:
        """Write the problems into the attempt, where the build reads them."""
        append(self.attempt.log, "\n\n".join(problems))
        self.attempt.fail(code, problems)

    def finished(self) -> None:
        """Close the trackers and remove the attempt; the next build removes what is left of it."""
        if self.tracking:
            self.tracking.close()
        with contextlib.suppress(MtrunError):
            remove(self.attempt.folder)

    def close(self) -> None:
        """End the other ranks."""
        others, self.others = self.others, None
        if others:
            others.close()

    def stop(self, number: int, frame: FrameType | None = None) -> None:
        """Take a signal: the first asks for a checkpoint, a second one ends the process at once."""
        if self.signals:
            os._exit(128 + number)
        super().stop(number, frame)

    def guard(self, parent: int) -> None:
        """Touch the lease; stop the worker once its build is gone or asks for it. Runs in a thread of its own."""
        since = 0.0
        while True:
            lease.touch(self.attempt.lease)
            if self.others and (failure := self.others.failure()):
                self._end(*failure)
            if (parent and os.getppid() != parent) or self.attempt.is_asked_to_stop():
                since = since or time.monotonic()
                self.signals.append(signal.SIGTERM)
                if time.monotonic() - since > PATIENCE_SECONDS:
                    os._exit(128 + signal.SIGTERM)
            time.sleep(LOOK_SECONDS)

    def _usage(self) -> dict[str, Any]:
        """Return the machine's name and the peak of memory in megabytes."""
        return {"host": socket.gethostname(), "megabytes": round(memory.peak(self.device))}

    def _end(self, code: int, why: str) -> None:
        """End the worker after another rank: with that one's error, or by the same signal."""
        if code > 0:
            time.sleep(ERROR_SECONDS)  # where all fail alike, this one says why
        if self.others is None:
            return
        self.close()
        if code > 0:
            self.failed(code, [why])
            os._exit(code)
        self.say(why)
        self.attempt.report({**self.attempt.progress(), "ended": why})
        os._exit(128 - code)
