"""The training loop and its complete, resumable state."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import Diverged, Problem, RegistryError, Stopped, TrainingError
from ..specs.spec import Model
from ..tasks.data import Data
from ..tasks.metrics import overall, score_split
from ..tasks.predictions import Output, Predictions
from . import checkpoint as snapshots
from . import gradient_conflict, memory
from .batches import Batch, Batches, seeded
from .evaluation import Evaluation
from .network import Network, not_finite
from .tokens import Tokens

SAVING_SHARE = 20
"""A checkpoint is written when training took this many times as long as the writing of the last one."""

COMPARED_EVERY = 16
"""At every so many steps the task gradients are compared, where the combiner does not need that at each; such a step
takes up to a tenth longer."""

REMEMBERED = 5
"""How many steps' losses are told where training diverges."""


@dataclass
class State:
    """All that a run remembers besides tensors. Random numbers and orders are functions of `step`, not state."""

    step: int = 0
    """Steps done."""
    losses: dict[str, float] = field(default_factory=dict)
    """Sum of each task's loss over the steps of this epoch."""
    conflict: dict[str, float] = field(default_factory=dict)
    """Sums over the steps of this epoch at which the tasks' gradients were compared (runner/conflict.py)."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """One entry an epoch: its mean losses and its dev scores."""
    best: int = -1
    """Epoch whose weights are kept, from 0; -1 before the first."""
    splits: list[dict[str, int]] = field(default_factory=list)
    """From which step on a batch is computed in how many parts, since memory ran out."""
    source: dict[str, str] = field(default_factory=dict)
    """Hashes of the code that the run was begun with."""

    @property
    def parts(self) -> int:
        """In how many parts a batch is computed."""
        return self.splits[-1]["parts"] if self.splits else 1


class TrainerCallback:
    """What a trainer tells others, and where it may be told to stop; this one does neither."""

    def tick(self) -> None:
        """Raise Stopped where training is to stop; called at least once a batch, of evaluation too."""

    def report(self, state: State) -> None:
        """Take note of how far training is."""

    def say(self, text: str) -> None:
        """Keep a line for whoever reads the log."""


class Trainer:
    """Trains one leaf; may be stopped at any step and go on from its checkpoint, bit for bit."""

    verb = "training"

    def __init__(self, model: Model, network: Network, data: Data, tokens: Tokens) -> None:
        self.model, self.network = model, network
        self.tasks = model.trained
        self.data = data
        self.batches = Batches(data, tokens, self.tasks, model.train)
        self.dev = Evaluation(data, tokens, tuple(model.heads), ("dev",))
        self.all = Evaluation(data, tokens, tuple(model.heads), ("dev", "test"))
        self.parameters = network.narrow(torch.from_numpy(self.batches.used()))
        self.device = next(network.parameters()).device
        self.optimizer = model.optimizer.build(network.groups(self.parameters))
        self.state = State()
        self.kept: dict[str, Tensor] = {}
        self.epochs: list[Predictions] = []
        """What the network said of dev after each epoch, where the best one is kept."""
        self.lately: deque[str] = deque(maxlen=REMEMBERED)
        """The losses of the last steps, in words."""

    def run(self, watch: TrainerCallback, checkpoint: Path) -> Predictions:
        """Train to the end and return the Predictions. Raise Stopped, after a checkpoint, where `watch` does."""
        self.network.train()
        try:
            self._train(watch, checkpoint)
            if self.kept:
                self.network.load_state_dict(self.kept)
            return self.all(self.network, watch.tick)
        except Stopped:
            self.save(checkpoint)
            raise

    @property
    def steps(self) -> int:
        """How many steps there are in all."""
        return len(self.batches)

    def outcome(self) -> dict[str, Any]:
        """Return what a manifest says besides what it does of every run."""
        return {}

    @property
    def kept_epoch(self) -> int:
        """The epoch whose weights are kept, from 0."""
        return self.state.best if self.state.best >= 0 else len(self.state.history) - 1

    def _train(self, watch: TrainerCallback, checkpoint: Path) -> None:
        """Do the steps and the ends of epochs that are left, with a checkpoint from time to time."""
        saved, cost = time.monotonic(), 0.0
        while self.state.step < len(self.batches) or self._owes_an_end():
            watch.tick()
            if self._owes_an_end():
                self._end_epoch(watch)
            else:
                self._step(watch)
            watch.report(self.state)
            now = time.monotonic()
            if now - saved > max(self.model.resources.checkpoint_seconds, SAVING_SHARE * cost):
                self.save(checkpoint)
                saved = time.monotonic()
                cost = saved - now

    def _owes_an_end(self) -> bool:
        """Tell whether an epoch's steps are done but not its scores."""
        return self.state.step // self.batches.steps_per_epoch > len(self.state.history)

    # One step --------------------------------------------------------------------------------------------------

    def _step(self, watch: TrainerCallback) -> None:
        """Do one step; every random number in it is a function of the seed and the step."""
        rate = self.model.optimizer.rate * self.model.schedule.factor(self.state.step, len(self.batches))
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        batch = self.batches.batch(self.state.step).to(self.device)
        losses = dict(zip(self.tasks, self._gradients(batch, watch).tolist(), strict=True))
        self._check(batch, losses)
        self.optimizer.step()
        self._check_weights()
        self.state.step += 1
        if self.network.gram is not None:
            self.state.conflict = gradient_conflict.added(self.state.conflict, self.tasks, self.network.gram)
        for task, loss in losses.items():
            self.state.losses[task] = self.state.losses.get(task, 0.0) + loss

    def _gradients(self, batch: Batch, watch: TrainerCallback) -> Tensor:
        """Set every gradient of the step and return the losses [T]; in more parts where memory runs out."""
        while True:
            try:
                return self._backward(batch)
            except (RuntimeError, MemoryError) as error:
                if not memory.is_exhausted(error):
                    raise
            self._split(batch, watch)  # out here, where the error no longer keeps the tensors of the step

    def _backward(self, batch: Batch) -> Tensor:
        step, seed = self.state.step, self.model.train.seed
        torch.manual_seed(seeded(seed, "dropout", step) + self.network.ranks.number)
        random = np.random.default_rng(seeded(seed, "combiner", step))
        self.network.clear()
        return self.network.backward(batch, self.model.combiner, random, self.state.parts, step % COMPARED_EVERY == 0)

    def _split(self, batch: Batch, watch: TrainerCallback) -> None:
        """Have batches computed in twice as many parts. Raise TrainingError where a part is one example already."""
        step, parts, most = self.state.step + 1, self.state.parts, -(-batch.most // self.network.ranks.count)
        facts = (f"batch of {batch.most} examples a task, in {parts} parts",
                 f"longest sentence: {batch.longest} tokens",
                 f"most memory used: {memory.peak(self.device):,.0f} MB on {self.device}")
        memory.release(self.device)
        if parts >= most:
            raise TrainingError(Problem(f"one example of each task does not fit into memory at step {step}",
                                        notes=facts, hint="lower encoder.max_length, or take a larger machine"))
        self.state.splits.append({"step": step, "parts": min(2 * parts, most)})
        watch.say(f"memory ran out at step {step} ({'; '.join(facts)}); from here on a batch is computed in "
                  f"{self.state.parts} parts, with the same gradients and losses")

    # What is not finite ----------------------------------------------------------------------------------------

    def _check(self, batch: Batch, losses: Mapping[str, float]) -> None:
        """Raise Diverged where a loss or a gradient is not finite."""
        self.lately.append(f"step {self.state.step + 1}: {', '.join(f'{t} {x:.4g}' for t, x in losses.items())}")
        for task, loss in losses.items():
            if not np.isfinite(loss):
                raise self._diverged(f"the loss of {task} is {loss}")
        if name := not_finite(self.network.gradients()):
            tasks = [task for task in self.tasks if not self._is_finite_alone(batch, task)]
            whose = " and ".join(tasks) or "all tasks together"
            raise self._diverged(f"the gradient of `{name}` is not finite, due to {whose},")

    def _check_weights(self) -> None:
        """Raise Diverged where a weight is not finite."""
        if name := not_finite(self.parameters):
            raise self._diverged(f"the weight `{name}` is not finite")

    def _is_finite_alone(self, batch: Batch, task: str) -> bool:
        """Tell whether one task's own gradient is finite."""
        self.network.clear()
        self.network.write_back()
        torch.manual_seed(seeded(self.model.train.seed, "dropout", self.state.step))
        self.network.losses(batch)[self.tasks.index(task)].backward()  # type: ignore[no-untyped-call]
        return not not_finite({n: p.grad for n, p in self.network.named_parameters() if p.grad is not None})

    def _diverged(self, what: str) -> Diverged:
        """Return the error of a step with numbers that are not finite."""
        rate = max(group["lr"] for group in self.optimizer.param_groups)
        return Diverged(Problem(f"{what} at step {self.state.step + 1}, rate {rate:g}",
                                notes=tuple(f"losses of {losses}" for losses in self.lately),
                                hint="lower optimizer.lr or optimizer.lr_scale"))

    # The end of an epoch ---------------------------------------------------------------------------------------

    def _end_epoch(self, watch: TrainerCallback) -> None:
        """Score dev, note the epoch and keep its weights where it is the best so far."""
        self.network.write_back()
        predictions = self.dev(self.network, watch.tick)
        scores = score_split(predictions, self.data, "dev")
        means = {task: total / self.batches.steps_per_epoch for task, total in self.state.losses.items()}
        self.state.history.append({"step": self.state.step, "losses": means, "dev": scores,
                                   **gradient_conflict.summary(self.state.conflict)})
        self.state.losses, self.state.conflict = {}, {}
        if self.model.train.select == "best":
            self.epochs.append(predictions)
        if self.model.train.select == "best" and self._is_best():
            self.state.best = len(self.state.history) - 1
            self.kept = {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}

    def _is_best(self) -> bool:
        """Tell whether the last epoch has the best dev overall of the trained tasks; ties go to the earlier."""
        trained = {task: self.data.tasks[task] for task in self.tasks}
        reached = [overall(epoch["dev"], trained) or 0.0 for epoch in self.state.history]
        return self.state.best < 0 or reached[-1] > reached[self.state.best]

    # The checkpoint --------------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write everything that the rest of the run depends on, at once or not at all. Raise StorageError.

        Of several ranks, which all know the same, the first does.
        """
        if self.network.ranks.number:
            return
        self.network.write_back()
        tensors = {f"network/{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"kept/{name}": tensor for name, tensor in self.kept.items()}
        tensors |= {f"epochs/{number}/{task}": torch.from_numpy(output.scores) for number, epoch in
                    enumerate(self.epochs) for task, output in epoch.outputs.get("dev", {}).items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{name}": torch.as_tensor(value) for name, value in values.items()}
        snapshots.write(path, tensors, asdict(self.state))

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint of the same run. Raise RegistryError where it is damaged or another's."""
        tensors, state = snapshots.read(path)
        try:
            self._take(tensors, State(**state))
        except (TypeError, ValueError, KeyError, RuntimeError) as error:
            if memory.is_exhausted(error):
                raise
            raise RegistryError(f"the checkpoint {path} is of another run or version: {error}") from None

    def _take(self, tensors: Mapping[str, Tensor], state: State) -> None:
        """Take over the tensors and the state of a checkpoint."""
        self.state = state
        self.network.load_state_dict(snapshots.under("network/", tensors))
        self.network.read_back()
        self.kept = {name: tensor.to(self.device) for name, tensor in snapshots.under("kept/", tensors).items()}
        self.epochs = self._said(snapshots.under("epochs/", tensors))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in snapshots.under("optimizer/", tensors).items():
            index, _, field_name = name.partition("/")
            moments.setdefault(int(index), {})[field_name] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})

    def _said(self, tensors: Mapping[str, Tensor]) -> list[Predictions]:
        """Return what was said of dev after each epoch; the tensors are called `EPOCH/TASK`."""
        if self.model.train.select != "best":
            return []
        found: list[dict[str, Output]] = [{} for _ in self.state.history]
        for name, scores in tensors.items():
            number, _, task = name.partition("/")
            found[int(number)][task] = Output(self.data.splits[task]["dev"].ids, scores.numpy())
        return [Predictions({"dev": outputs}) for outputs in found]
