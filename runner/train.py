"""The training loop and its complete, resumable state."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from .batches import Batches, seeded
from .errors import Diverged
from .evaluate import Evaluation
from .files import write_bytes
from .network import Network
from .predictions import Predictions
from .scores import overall, score_split
from .spec import Model
from .suites import Data
from .tokens import Tokens

CHECKPOINT_SECONDS = 60.0
"""Most seconds of work that a crash can cost, besides what a checkpoint itself takes."""

Report = Callable[["State"], None]


@dataclass
class State:
    """All that a run remembers besides tensors. Random numbers and orders are functions of `step`, not state."""

    step: int = 0
    """Steps done."""
    losses: dict[str, float] = field(default_factory=dict)
    """Sum of each task's loss over the steps of this epoch."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """One entry an epoch: its mean losses and its dev scores."""
    best: int = -1
    """Epoch whose weights are kept, from 0; -1 before the first."""


class Trainer:
    """Trains one leaf; may be stopped at any step and go on from its checkpoint, bit for bit."""

    def __init__(self, model: Model, network: Network, data: Data, tokens: Tokens) -> None:
        self.model, self.network = model, network
        self.tasks = model.trained
        self.data = data
        self.batches = Batches(data, tokens, self.tasks, model.train)
        self.dev = Evaluation(data, tokens, tuple(model.heads), ("dev",))
        self.all = Evaluation(data, tokens, tuple(model.heads), ("dev", "test"))
        self.parameters = {n: p for n, p in network.named_parameters() if p.requires_grad}
        self.optimizer = model.optimizer.build(self.parameters.values())
        self.state = State()
        self.kept: dict[str, Tensor] = {}

    def run(self, report: Report, stop: Callable[[], bool], checkpoint: Path) -> Predictions | None:
        """Train to the end and return the Predictions; None where `stop` asked to stop, after a checkpoint."""
        self.network.train()
        saved = time.monotonic()
        while self.state.step < len(self.batches):
            if stop():
                self.save(checkpoint)
                return None
            self._step()
            if self.state.step % self.batches.steps_per_epoch == 0:
                self._end_epoch()
            report(self.state)
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                self.save(checkpoint)
                saved = time.monotonic()
        if self.kept:
            self.network.load_state_dict(self.kept)
        return self.all(self.network)

    @property
    def kept_epoch(self) -> int:
        """The epoch whose weights are kept, from 0."""
        return self.state.best if self.state.best >= 0 else len(self.state.history) - 1

    def _step(self) -> None:
        """Do one step; every random number in it is a function of the seed and the step."""
        step, seed = self.state.step, self.model.train.seed
        torch.manual_seed(seeded(seed, "dropout", step))
        for group in self.optimizer.param_groups:
            base = self.model.optimizer.lr * self.model.optimizer.lr_scale
            group["lr"] = base * self.model.schedule.factor(step, len(self.batches))
        self.optimizer.zero_grad()
        batch = self.batches.batch(step).to(next(iter(self.parameters.values())).device)
        random = np.random.default_rng(seeded(seed, "combiner", step))
        losses = dict(zip(self.tasks, self.network.backward(batch, self.model.combiner, random).tolist(), strict=True))
        self._check(losses)
        self.optimizer.step()
        self.state.step += 1
        for task, loss in losses.items():
            self.state.losses[task] = self.state.losses.get(task, 0.0) + loss

    def _check(self, losses: Mapping[str, float]) -> None:
        """Raise Diverged where a loss is not finite."""
        for task, loss in losses.items():
            if not np.isfinite(loss):
                rate = self.optimizer.param_groups[0]["lr"]
                raise Diverged(f"the loss of {task} is {loss} at step {self.state.step + 1}, rate {rate:g}; "
                               f"losses: {', '.join(f'{t} {x:.4g}' for t, x in losses.items())}")

    def _end_epoch(self) -> None:
        """Score dev, note the epoch and keep its weights where it is the best so far."""
        means = {task: total / self.batches.steps_per_epoch for task, total in self.state.losses.items()}
        scores = score_split(self.dev(self.network), self.data, "dev")
        self.state.losses = {}
        self.state.history.append({"step": self.state.step, "losses": means, "dev": scores})
        if self.model.train.select == "best" and self._is_best():
            self.state.best = len(self.state.history) - 1
            self.kept = {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}

    def _is_best(self) -> bool:
        """Tell whether the last epoch has the best dev overall of the trained tasks; ties go to the earlier."""
        trained = {task: self.data.tasks[task] for task in self.tasks}
        reached = [overall(epoch["dev"], trained) or 0.0 for epoch in self.state.history]
        return self.state.best < 0 or reached[-1] > reached[self.state.best]

    # The checkpoint: one safetensors file, tensors by name and the rest as JSON in its header ----------------------

    def save(self, path: Path) -> None:
        """Write everything that the rest of the run depends on, as one file, at once or not at all."""
        tensors = {f"network/{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"kept/{name}": tensor for name, tensor in self.kept.items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{name}": torch.as_tensor(value) for name, value in values.items()}
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        write_bytes(path, save(plain, {"state": json.dumps(asdict(self.state))}))

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint of the same run."""
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            self.state = State(**json.loads(file.metadata()["state"]))
        self.network.load_state_dict(_under("network/", tensors))
        device = next(iter(self.parameters.values())).device
        self.kept = {name: tensor.to(device) for name, tensor in _under("kept/", tensors).items()}
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under("optimizer/", tensors).items():
            index, _, field_name = name.partition("/")
            moments.setdefault(int(index), {})[field_name] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
