"""Supervision: what a worker tells of a leaf in training, when it is to stop, and the processes that help it."""

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
from .rank_processes import RankProcesses, met
from .trackers import Tracking

PROGRESS_SECONDS = 0.5

LOOK_SECONDS = 1.0
"""How often a worker looks whether its build is still there."""

PATIENCE_SECONDS = 20.0
"""How long a worker whose build is gone has to come to a checkpoint before it ends without."""

WORD_SECONDS = 3.0
"""How long a worker has to fail by itself where another rank has failed."""


@dataclass
class Supervisor(TrainerCallback):
    """Tells an attempt's folder how far training is, and training where it is to stop."""

    attempt: Attempt
    is_process: bool = False
    """Whether the worker is a process of its own, which may start others to help it."""
    steps: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    signals: list[int] = field(default_factory=list)
    """What asked to stop."""
    tracking: Tracking | None = None
    ranks: ProcessGroup = field(default_factory=ProcessGroup)
    crew: RankProcesses | None = None
    _reported: float = 0.0

    def tick(self) -> None:
        """Raise Stopped on all ranks where a signal asked one for it, or the build is gone."""
        if number := self.ranks.agree(self.signals[0] if self.signals else 0):
            raise Stopped(number)

    def report(self, state: State) -> None:
        """Tell trackers of a new epoch, and the build where the last telling is long enough ago."""
        if self.tracking:
            self.tracking.tell(state.history)
        now = time.monotonic()
        if now - self._reported >= PROGRESS_SECONDS:
            self._reported = now
            dev = state.history[-1]["dev"]["overall"] if state.history else None
            self.attempt.report({"step": state.step, "steps": self.steps, "epoch": len(state.history), "overall": dev,
                                 **self.place()})

    def begin(self) -> None:
        """Tell the build where the worker is, before there is any progress."""
        told = {key: value for key, value in self.attempt.progress().items() if key != "ended"}
        self.attempt.report({**told, **self.place()})

    def gather(self, count: int) -> ProcessGroup:
        """Return the ranks of the leaf once all are there; the others are started."""
        if count > 1:
            self.crew = RankProcesses(self.attempt.folder, count)
            self.ranks = self.crew.join()
        return self.ranks

    def disband(self) -> None:
        """End the other ranks."""
        crew, self.crew = self.crew, None
        if crew:
            crew.close()

    def follow(self, order: TrainingJob, trainer: Trainer) -> None:
        """Get to know what is trained."""
        self.steps, self.device, self.tracking = trainer.steps, trainer.device, Tracking(order, self.say)

    def stopped(self, error: Stopped) -> int:
        """Return the exit code of a worker that was stopped."""
        return error.exit_code

    def failed(self, code: int, problems: list[str]) -> None:
        """Tell the build why there is no run."""
        append(self.attempt.log, "\n\n".join(problems))
        self.attempt.fail(code, problems)

    def finished(self) -> None:
        """Clear the attempt, whose run is there; the next build clears what is left."""
        with contextlib.suppress(MtrunError):
            remove(self.attempt.folder)

    def close(self) -> None:
        """Let trackers end."""
        if self.tracking:
            self.tracking.close()

    def place(self) -> dict[str, Any]:
        """Return on which machine the worker is, and the most megabytes that it took."""
        return {"host": socket.gethostname(), "megabytes": round(memory.peak(self.device))}

    def say(self, text: str) -> None:
        """Add a line to the attempt's log."""
        append(self.attempt.log, text)

    def stop(self, number: int, frame: FrameType | None = None) -> None:
        """Take a signal: the first asks for a checkpoint, a second one ends the process at once."""
        if self.signals:
            os._exit(128 + number)
        self.signals.append(number)

    def guard(self, parent: int) -> None:
        """Show that the worker lives; stop it once its build is gone or asks for it. Runs in a thread of its own."""
        asked = 0.0
        while True:
            lease.touch(self.attempt.lease)
            if self.crew and (loss := self.crew.loss()):
                self._lose(*loss)
            if (parent and os.getppid() != parent) or self.attempt.is_asked_to_stop():
                asked = asked or time.monotonic()
                self.signals.append(signal.SIGTERM)
                if time.monotonic() - asked > PATIENCE_SECONDS:
                    os._exit(128 + signal.SIGTERM)
            time.sleep(LOOK_SECONDS)

    def _lose(self, code: int, why: str) -> None:
        """End the worker since another rank has ended: with its error, or as if it had been killed as that one was."""
        if code > 0:
            time.sleep(WORD_SECONDS)  # where all fail alike, this one says why
        if self.crew is None:
            return
        self.disband()
        if code > 0:
            self.failed(code, [why])
            os._exit(code)
        self.say(why)
        self.attempt.report({**self.attempt.progress(), "ended": why})
        os._exit(128 - code)


@dataclass
class Helping(Supervisor):
    """Supervises a rank that another one started, which alone tells the build and writes."""

    seat: tuple[int, ...] = ()
    """Its number, how many ranks there are, and the port where they meet."""

    def gather(self, count: int) -> ProcessGroup:
        """Return the ranks of the leaf once all are there."""
        self.ranks = met(*self.seat)
        return self.ranks

    def begin(self) -> None:
        """Tell nothing."""

    def report(self, state: State) -> None:
        """Tell nothing."""

    def say(self, text: str) -> None:
        """Tell nothing."""

    def follow(self, order: TrainingJob, trainer: Trainer) -> None:
        """Follow nothing."""

    def stopped(self, error: Stopped) -> int:
        """Return that all is well, since the first rank writes the checkpoint."""
        return 0

    def failed(self, code: int, problems: list[str]) -> None:
        """Tell the first rank why this one failed."""
        print("\n\n".join(problems))

    def finished(self) -> None:
        """Leave the attempt to the first rank."""

    def stop(self, number: int, frame: FrameType | None = None) -> None:
        """Take a signal; the first rank decides when to end."""
        self.signals.append(number)

    def guard(self, parent: int) -> None:
        """End this process once the first rank is gone."""
        while os.getppid() == parent:
            time.sleep(LOOK_SECONDS)
        os._exit(128 + signal.SIGTERM)
