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
from ..tasks.metrics import OVERALL, measures, overall, score_split
from ..tasks.predictions import Output, Predictions
from . import checkpoint as snapshots
from . import gradient_conflict, memory
from .batches import Batch, Batches, seeded, with_weights
from .evaluation import Evaluation
from .network import Network, not_finite
from .tokens import Tokens

SAVING_RATIO = 20
"""A checkpoint is due once training has taken this many times as long as writing the last checkpoint."""

COMPARE_EVERY = 16
"""Interval, in steps, of measuring gradient conflict if the combiner does not need task gradients anyway; such a step
takes up to a tenth longer."""

REPORTED_STEPS = 5
"""Number of last steps whose losses are reported if training diverges."""


@dataclass
class State:
    """Training state without tensors. Random numbers and example orders are functions of `step`, not state."""

    step: int = 0
    """Number of completed steps."""
    losses: dict[str, float] = field(default_factory=dict)
    """Task -> sum of its loss over the steps of this epoch."""
    conflict: dict[str, float] = field(default_factory=dict)
    """Sums of `gradient_conflict` over the measured steps of this epoch."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """One entry per epoch: mean losses, dev scores, gradient conflict."""
    best: int = -1
    """Epoch with the best dev score so far, from 0; -1 before the first."""
    splits: list[dict[str, int]] = field(default_factory=list)
    """Steps from which a batch is computed in more micro-batches (`parts`), after running out of memory."""
    source: dict[str, str] = field(default_factory=dict)
    """Fingerprints of the code that started the run."""

    @property
    def parts(self) -> int:
        """Number of micro-batches of a batch."""
        return self.splits[-1]["parts"] if self.splits else 1


class TrainerCallback:
    """Hooks for progress, log lines and stopping; does nothing by default."""

    def tick(self) -> None:
        """Raise Stopped to stop; called at least once per training or evaluation batch."""

    def report(self, state: State) -> None:
        """Receive the state after each step and each epoch."""

    def say(self, text: str) -> None:
        """Write a line to the log."""


class Trainer:
    """Trains one leaf; resuming from a checkpoint at any step gives bit-identical results."""

    verb = "training"

    def __init__(self, model: Model, network: Network, data: Data, tokens: Tokens) -> None:
        self.model, self.network = model, network
        self.tasks = model.trained
        self.data = data
        # The losses of a student, which are the network's, know its labels.
        self.batches = Batches(with_weights(data, network.model), tokens, self.tasks, model.train)
        self.dev = Evaluation(data, tokens, tuple(model.heads), ("dev",))
        self.all = Evaluation(data, tokens, tuple(model.heads), ("dev", "test"))
        self.parameters = network.prepare_training(torch.from_numpy(self.batches.used()))
        self.device = next(network.parameters()).device
        self.optimizer = model.optimizer.build(network.groups(self.parameters))
        self.state = State()
        self.kept: dict[str, Tensor] = {}
        self.epochs: list[Predictions] = []
        """Dev predictions after each epoch, if the best epoch is selected."""
        self.last_losses: deque[str] = deque(maxlen=REPORTED_STEPS)
        """The losses of the last steps, as text."""

    def run(self, watch: TrainerCallback, checkpoint: Path) -> Predictions:
        """Train to the end and return the Predictions. If `watch` raises Stopped, save a checkpoint and re-raise."""
        self.network.train()
        try:
            self._train(watch, checkpoint)
            if self.kept:
                self.network.load_trained(self.kept)
            return self.all(self.network, watch.tick)
        except Stopped:
            self.save(checkpoint)
            raise

    @property
    def steps(self) -> int:
        """Total number of steps."""
        return len(self.batches)

    def outcome(self) -> dict[str, Any]:
        """Return manifest entries specific to this kind of trainer."""
        return {}

    @property
    def kept_epoch(self) -> int:
        """Epoch whose weights are the result, from 0."""
        return self.state.best if self.state.best >= 0 else len(self.state.history) - 1

    def _train(self, watch: TrainerCallback, checkpoint: Path) -> None:
        """Run the remaining steps and epoch ends, with periodic checkpoints."""
        saved_at, save_seconds = time.monotonic(), 0.0
        while self.state.step < len(self.batches) or self._epoch_is_unscored():
            watch.tick()
            if self._epoch_is_unscored():
                self._end_epoch(watch)
            else:
                self._step(watch)
            watch.report(self.state)
            now = time.monotonic()
            if now - saved_at > max(self.model.resources.checkpoint_seconds, SAVING_RATIO * save_seconds):
                self.save(checkpoint)
                saved_at = time.monotonic()
                save_seconds = saved_at - now

    def _epoch_is_unscored(self) -> bool:
        """Return whether all steps of an epoch are done and its dev scores are missing."""
        return self.state.step // self.batches.steps_per_epoch > len(self.state.history)

    # One step --------------------------------------------------------------------------------------------------

    def _step(self, watch: TrainerCallback) -> None:
        """Run one optimizer step; all its random numbers are functions of seed and step."""
        rate = self.model.optimizer.rate * self.model.schedule.factor(self.state.step, len(self.batches))
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        batch = self.batches.batch(self.state.step).to(self.device)
        losses = dict(zip(self.tasks, self._gradients(batch, watch).tolist(), strict=True))
        self._check(batch, losses)
        self.optimizer.step()
        self.network.keep_untrained()
        self._check_weights()
        self.state.step += 1
        if self.network.gram is not None:
            self.state.conflict = gradient_conflict.accumulate(self.state.conflict, self.tasks, self.network.gram)
        for task, loss in losses.items():
            self.state.losses[task] = self.state.losses.get(task, 0.0) + loss

    def _gradients(self, batch: Batch, watch: TrainerCallback) -> Tensor:
        """Compute the gradients of the step and return the losses [T]; split the batch further if memory runs out."""
        while True:
            try:
                return self._backward(batch)
            except (RuntimeError, MemoryError) as error:
                if not memory.is_exhausted(error):
                    raise
            self._split(batch, watch)  # outside `except`, where the error no longer keeps the tensors of the step alive

    def _backward(self, batch: Batch) -> Tensor:
        step, seed = self.state.step, self.model.train.seed
        torch.manual_seed(seeded(seed, "dropout", step) + self.network.ranks.number)
        random = np.random.default_rng(seeded(seed, "combiner", step))
        self.network.clear()
        return self.network.backward(batch, self.model.combiner, random, self.state.parts, step % COMPARE_EVERY == 0)

    def _split(self, batch: Batch, watch: TrainerCallback) -> None:
        """Double the number of micro-batches. Raise TrainingError if each has one example per task already."""
        step, parts, max_parts = self.state.step + 1, self.state.parts, -(-batch.most // self.network.ranks.count)
        facts = (f"batch of {batch.most} examples a task, in {parts} parts",
                 f"longest sentence: {batch.longest} tokens",
                 f"most memory used: {memory.peak(self.device):,.0f} MB on {self.device}")
        memory.release(self.device)
        if parts >= max_parts:
            raise TrainingError(Problem(f"one example of each task does not fit into memory at step {step}",
                                        notes=facts, hint="lower encoder.max_length, or take a larger machine"))
        self.state.splits.append({"step": step, "parts": min(2 * parts, max_parts)})
        watch.say(f"memory ran out at step {step} ({'; '.join(facts)}); from here on a batch is computed in "
                  f"{self.state.parts} parts, with the same gradients and losses")

    # Checks for non-finite numbers -----------------------------------------------------------------------------

    def _check(self, batch: Batch, losses: Mapping[str, float]) -> None:
        """Raise Diverged if a loss or a gradient is not finite."""
        self.last_losses.append(f"step {self.state.step + 1}: {', '.join(f'{t} {x:.4g}' for t, x in losses.items())}")
        for task, loss in losses.items():
            if not np.isfinite(loss):
                raise self._diverged(f"the loss of {task} is {loss}")
        if name := not_finite(self.network.gradients()):
            tasks = [task for task in self.tasks if not self._is_finite_alone(batch, task)]
            cause = " and ".join(tasks) or "all tasks together"
            raise self._diverged(f"the gradient of `{name}` is not finite, due to {cause},")

    def _check_weights(self) -> None:
        """Raise Diverged if a weight is not finite."""
        if name := not_finite(self.parameters):
            raise self._diverged(f"the weight `{name}` is not finite")

    def _is_finite_alone(self, batch: Batch, task: str) -> bool:
        """Return whether the gradient of one task alone is finite."""
        self.network.clear()
        self.network.write_back()
        torch.manual_seed(seeded(self.model.train.seed, "dropout", self.state.step))
        self.network.losses(batch)[self.tasks.index(task)].backward()  # type: ignore[no-untyped-call]
        return not not_finite({n: p.grad for n, p in self.network.named_parameters() if p.grad is not None})

    def _diverged(self, problem: str) -> Diverged:
        """Build the error for a step with non-finite numbers."""
        rate = max(group["lr"] for group in self.optimizer.param_groups)
        return Diverged(Problem(f"{problem} at step {self.state.step + 1}, rate {rate:g}",
                                notes=tuple(f"losses of {losses}" for losses in self.last_losses),
                                hint="lower optimizer.lr or optimizer.lr_scale"))

    # The end of an epoch ---------------------------------------------------------------------------------------

    def _end_epoch(self, watch: TrainerCallback) -> None:
        """Score dev, append to the history, and keep the weights if the epoch is the best so far."""
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
            self.kept = {name: tensor.detach().clone() for name, tensor in self.network.trained_state().items()}

    def _is_best(self) -> bool:
        """Return whether the last epoch is the best on dev by `select_by`; ties go to the earlier epoch."""
        by, trained = self.model.train.select_by, {task: self.data.tasks[task] for task in self.tasks}
        if by == OVERALL:
            scores = [overall(epoch["dev"], trained) or 0.0 for epoch in self.state.history]
        else:
            sign = measures(trained)[by].metric.sign
            scores = [sign * (epoch["dev"][by] or 0.0) for epoch in self.state.history]
        return self.state.best < 0 or scores[-1] > scores[self.state.best]

    # The checkpoint --------------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write a checkpoint atomically. Raise StorageError.

        Only rank 0 writes; all ranks have the same state.
        """
        if self.network.ranks.number:
            return
        self.network.write_back()
        tensors = {f"network/{name}": tensor for name, tensor in self.network.trained_state().items()}
        tensors |= {f"kept/{name}": tensor for name, tensor in self.kept.items()}
        tensors |= {f"epochs/{number}/{task}": torch.from_numpy(output.scores) for number, epoch in
                    enumerate(self.epochs) for task, output in epoch.outputs.get("dev", {}).items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{name}": torch.as_tensor(value) for name, value in values.items()}
        snapshots.write(path, tensors, asdict(self.state))

    def restore(self, path: Path) -> None:
        """Load a checkpoint. Raise RegistryError if it is damaged or of another run or version."""
        tensors, state = snapshots.read(path)
        try:
            self._load(tensors, State(**state))
        except (TypeError, ValueError, KeyError, RuntimeError) as error:
            if memory.is_exhausted(error):
                raise
            raise RegistryError(f"the checkpoint {path} is of another run or version: {error}") from None

    def _load(self, tensors: Mapping[str, Tensor], state: State) -> None:
        """Set state, weights and optimizer from the content of a checkpoint."""
        self.state = state
        self.network.load_trained(snapshots.with_prefix("network/", tensors))
        self.network.read_back()
        self.kept = {name: tensor.to(self.device) for name, tensor in snapshots.with_prefix("kept/", tensors).items()}
        self.epochs = self._dev_predictions(snapshots.with_prefix("epochs/", tensors))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in snapshots.with_prefix("optimizer/", tensors).items():
            index, _, field_name = name.partition("/")
            moments.setdefault(int(index), {})[field_name] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})

    def _dev_predictions(self, tensors: Mapping[str, Tensor]) -> list[Predictions]:
        """Rebuild the dev predictions of each epoch from score tensors named `EPOCH/TASK`."""
        if self.model.train.select != "best":
            return []
        epochs: list[dict[str, Output]] = [{} for _ in self.state.history]
        for name, scores in tensors.items():
            number, _, task = name.partition("/")
            epochs[int(number)][task] = Output(self.data.splits[task]["dev"].ids, scores.numpy())
        return [Predictions({"dev": outputs}) for outputs in epochs]
