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
"""How often a worker checks whether its build is still running."""

PATIENCE_SECONDS = 20.0
"""How long a worker may take to write a checkpoint after its build has ended."""

ERROR_SECONDS = 3.0
"""How long a worker waits for its own error after another rank has failed."""


@dataclass
class Rank(TrainerCallback):
    """One process that trains a leaf; a signal to one rank stops all ranks at the same step."""

    attempt: Attempt
    signals: list[int] = field(default_factory=list)
    """Received signals."""
    ranks: ProcessGroup = field(default_factory=ProcessGroup)

    def tick(self) -> None:
        """Raise Stopped on all ranks if one of them received a signal."""
        if number := self.ranks.agree(self.signals[0] if self.signals else 0):
            raise Stopped(number)

    def stop(self, number: int, frame: FrameType | None = None) -> None:
        """Handle a signal: request a checkpoint and a stop."""
        self.signals.append(number)

    def begin(self) -> None:
        """Called before the data are read."""

    def gather(self, count: int) -> ProcessGroup:
        """Return the process group of `count` ranks after all of them have joined."""
        return self.ranks

    def follow(self, job: TrainingJob, trainer: Trainer) -> None:
        """Called before the first step."""

    def stopped(self, error: Stopped) -> int:
        """Return the exit code of a stopped process."""
        return 0

    def failed(self, code: int, problems: list[str]) -> None:
        """Called after a failure, with the exit code."""

    def finished(self) -> None:
        """Called after the run has been committed to the registry."""

    def close(self) -> None:
        """Called before the process ends; the other ranks are ended."""


@dataclass
class OtherRank(Rank):
    """A rank started by the first one; it writes no files."""

    number: int = 1
    count: int = 2
    port: int = 0
    """Port of the rendezvous."""

    def gather(self, count: int) -> ProcessGroup:
        """Join the process group and return it."""
        self.ranks = join(self.number, self.count, self.port)
        return self.ranks

    def failed(self, code: int, problems: list[str]) -> None:
        """Print the problems for the first rank, which reads the output."""
        print("\n\n".join(problems))

    def guard(self, parent: int) -> None:
        """End this process when the first rank has ended. Runs in its own thread."""
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
        """Append a line to the log of the attempt."""
        append(self.attempt.log, text)

    def begin(self) -> None:
        """Write host and memory to the progress file before the first step."""
        progress = {key: value for key, value in self.attempt.progress().items() if key != "ended"}
        self.attempt.report({**progress, **self._usage()})

    def gather(self, count: int) -> ProcessGroup:
        """Start the other ranks and return the process group after all have joined."""
        if count > 1:
            self.others = RankProcesses(self.attempt.folder, count)
            self.ranks = self.others.join()
        return self.ranks

    def follow(self, job: TrainingJob, trainer: Trainer) -> None:
        """Store the number of steps and the device, and open the trackers."""
        self.steps, self.device, self.tracking = trainer.steps, trainer.device, Tracking(job, self.say)

    def stopped(self, error: Stopped) -> int:
        """Return the exit code of a stopped worker."""
        return error.exit_code

    def failed(self, code: int, problems: list[str]) -> None:
        """Write the problems to the attempt for the build."""
        append(self.attempt.log, "\n\n".join(problems))
        self.attempt.fail(code, problems)

    def finished(self) -> None:
        """Close the trackers and remove the attempt; the next build removes leftovers."""
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
        """Handle a signal: the first requests a checkpoint and a stop, a second ends the process at once."""
        if self.signals:
            os._exit(128 + number)
        super().stop(number, frame)

    def guard(self, parent: int) -> None:
        """Renew the lease; stop the worker when its build has ended or requests it. Runs in its own thread."""
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
        """Return host name and peak memory in megabytes."""
        return {"host": socket.gethostname(), "megabytes": round(memory.peak(self.device))}

    def _end(self, code: int, why: str) -> None:
        """End the worker after another rank ended, with its error or its signal."""
        if code > 0:
            time.sleep(ERROR_SECONDS)  # if all ranks fail, the error of this rank is reported
        if self.others is None:
            return
        self.close()
        if code > 0:
            self.failed(code, [why])
            os._exit(code)
        self.say(why)
        self.attempt.report({**self.attempt.progress(), "ended": why})
        os._exit(128 - code)
