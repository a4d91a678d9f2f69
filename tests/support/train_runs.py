"""What tests of training share."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import torch

from runner.errors import Stopped
from runner.specs.loader import Loader
from runner.training.trainer import Trainer, TrainerCallback
from runner.worker.worker import trainer_of


def trainer(root: Path, *settings: str) -> Trainer:
    (node,) = Loader(root, "demo", settings).load(root / "specs" / "sum.toml")
    return trainer_of(node.model, node.model.suite.load(root), root, root / "cache")


@dataclass
class Stop(TrainerCallback):
    """Stops at the given tick, counted over training and evaluation."""

    at: int = -1
    ticks: int = 0
    said: list[str] = field(default_factory=list)

    def tick(self) -> None:
        self.ticks += 1
        if self.ticks == self.at:
            raise Stopped(15)

    def say(self, text: str) -> None:
        self.said.append(text)


def digest(trainer: Trainer) -> str:
    """Hash of weights, optimizer state, history and what was said of dev after each epoch."""
    values = [trainer.state.history, [epoch.to_bytes() for epoch in trainer.epochs],
              [(n, t.numpy().tobytes()) for n, t in trainer.network.state_dict().items()],
              sorted((i, n, v.numpy().tobytes()) for i, s in trainer.optimizer.state_dict()["state"].items()
                     for n, v in s.items())]
    return hashlib.sha256(repr(values).encode()).hexdigest()


def whole(root: Path, *settings: str) -> tuple[Trainer, bytes, int]:
    """Train without a stop; return the trainer, its predictions' bytes and the number of ticks."""
    run, watch = trainer(root, *settings), Stop()
    return run, run.run(watch, root / "none").to_bytes(), watch.ticks


def resumed(root: Path, stops: list[int], *settings: str) -> tuple[Trainer, bytes]:
    """Train in pieces of so many ticks, each in a new trainer, then to the end."""
    checkpoint = root / "checkpoint.safetensors"
    for stop in [*stops, -1]:
        torch.manual_seed(stop % 1000)  # what the process did before must not matter
        run = trainer(root, *settings)
        if checkpoint.exists():
            run.restore(checkpoint)
        try:
            return run, run.run(Stop(stop), checkpoint).to_bytes()
        except Stopped:
            assert stop > 0
    raise AssertionError
