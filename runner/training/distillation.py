"""Distillation: training data of a student (labelled and unlabelled examples with teacher scores), and its loss."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..errors import DataError, Place, Problem, RegistryError
from ..files import open_file, reported
from ..part import Known
from ..parts.ensembles import TreePredictions
from ..parts.losses import Loss
from ..registry.registry import WEIGHTS, Registry, Run
from ..specs.job import TrainingJob
from ..specs.spec import Model
from ..tasks.data import Data, Examples, Task
from ..tasks.metrics import least_squares
from ..tasks.predictions import Output, Predictions
from ..tasks.table_files import lines
from . import checkpoint
from .stored_model import StoredModel, read_run


class DistillationLoss(Loss):
    """Weighted sum of the loss of a head on the labels and of a loss on the teacher scores (Hinton et al. 2015).

    Its labels are [n, 1 + k]: the label, nan if there is none, and the teacher scores; [n, 2 k] for a multi-label task.
    """

    own: Loss
    """Loss of the head."""
    share: float
    """Weight of the labels."""
    temperature: float
    """Divisor T of the scores of teacher and student."""

    def start(self, task: Task) -> float:
        """Return the initial score of a new head, as the loss of the head defines it."""
        return self.own.start(task)

    def each(self, scores: Tensor, labels: Tensor, task: Task) -> Tensor:
        """Return the loss of each example: scores [n, k], labels [n, 1 + k] -> [n]."""
        wide, target = labels[:, :-scores.shape[1]], labels[:, -scores.shape[1]:]
        known = wide[:, 0].isfinite()
        label = wide if task.kind == "multilabel" else wide[:, 0]
        own = torch.where(known, self.own.each(scores, label.where(label.isfinite(), task.low), task), 0.0)
        return self.share * own + (1 - self.share) * self._softened(scores, target, task)

    def weights(self, labels: np.ndarray, task: Task) -> np.ndarray | None:
        """Return the class weights of the head's loss."""
        return self.own.weights(labels[:, 0], task)

    def _softened(self, scores: Tensor, target: Tensor, task: Task) -> Tensor:
        """Return the loss [n] on teacher scores [n, k]; the factor T^2 keeps the scale of the gradients."""
        t = self.temperature
        if task.kind == "classification":
            return t**2 * cross_entropy(scores / t, (target / t).softmax(1), reduction="none")
        if task.kind == "binary":
            return t**2 * self.own.each(scores / t, (target[:, 0] / t).sigmoid(), task)
        if task.kind == "multilabel":
            return t**2 * self.own.each(scores / t, (target / t).sigmoid(), task)
        return self.own.each(scores, target[:, 0], task)


def distilled(model: Model) -> Model:
    """Return a model for training: with a DistillationLoss on each trained head if it has a teacher."""
    teacher = model.teacher
    if teacher is None:
        return model
    heads = {task: head.model_copy(update={"loss": DistillationLoss(own=head.loss, share=teacher.labels,
                                                             temperature=teacher.temperature)})
             if task in model.trained else head for task, head in model.heads.items()}
    return model.model_copy(update={"heads": heads})


def targets(job: TrainingJob, data: Data, registry: Registry, device: torch.device,
           tick: Callable[[], None] = lambda: None) -> Data:
    """Return the data of a student with training labels [n, 1 + k]: label, nan for none, and teacher scores.

    `tick` may raise to stop. Raise DataError for an invalid file of sentences, RegistryError if a run is missing.
    """
    teacher = job.model.teacher
    assert teacher and isinstance(teacher.spec, Known)
    splits = dict(data.splits)
    for task in job.model.trained:
        file = teacher.unlabelled.get(task)
        train = data.splits[task]["train"]
        added = unlabelled(job.project / file, data.tasks[task]) if file else Examples((), ())
        splits[task] = {**splits[task], "train": _joined(train, added)}
    whole = replace(data, splits=splits)
    predictions = TeacherTargets(job, data, whole, registry, device, tick).of(teacher.spec.id)
    for task in job.model.trained:
        scores, train = predictions.find(whole, "train", task, teacher.spec.id), splits[task]["train"]
        if scores is None or train.labels is None:
            raise RegistryError(f"the teacher {teacher.spec.id} says nothing of `{task}`")
        target = scores.astype(np.float64)
        if data.tasks[task].kind == "regression":
            target = on_scale(target, train.labels, data.tasks[task])
        splits[task] = {**splits[task], "train": replace(train, labels=np.column_stack([train.labels, target]))}
    return replace(data, splits=splits)


def unlabelled(path: Path, task: Task) -> Examples:
    """Read unlabelled sentences, one example per line, the two of a pair separated by a tab. Raise DataError."""
    with reported("read", path):
        rows = [(line.number, [cell.strip() for cell in line.text.split("\t")])
                for line in lines(open_file(path), str(path)) if line.text.strip()]
    wanted = "one sentence" if task.sentences == 1 else "two sentences with a tab between them"
    if wrong := [number for number, row in rows if len(row) != task.sentences or not all(row)]:
        raise DataError(*(Problem(f"a line must be {wanted}", Place(str(path), number)) for number in wrong))
    first, second = (tuple(row[side] for _, row in rows if side < len(row)) for side in (0, 1))
    return Examples(tuple(f"unlabelled:{number}" for number, _ in rows), first, second)


def _joined(train: Examples, more: Examples) -> Examples:
    """Append unlabelled examples, with label nan, to labelled ones."""
    assert train.labels is not None
    labels = np.concatenate([train.labels, np.full((len(more), *train.labels.shape[1:]), np.nan)])
    weights = None if train.weights is None else np.concatenate([train.weights, np.ones(len(more))])
    return Examples(train.ids + more.ids, train.first + more.first, train.second + more.second, labels, weights)


def on_scale(scores: np.ndarray, labels: np.ndarray, task: Task) -> np.ndarray:
    """Map regression scores [n, 1] to the scale of the labels [n] by least squares on the known ones, and clip."""
    known = np.isfinite(labels)
    slope, level = least_squares(scores[known, 0], labels[known])
    scaled: np.ndarray = slope * scores + level
    return scaled.clip(task.low, task.high)


@dataclass(frozen=True)
class TeacherTargets:
    """Predictions of the tree of a teacher on training sentences."""

    job: TrainingJob
    suite: Data
    """The suite that the leaves of the teacher were trained on."""
    whole: Data
    """The suite with the unlabelled examples added to train."""
    registry: Registry
    device: torch.device
    tick: Callable[[], None]

    def of(self, id: str) -> Predictions:
        """Return the Predictions of a node: stored ones of dev, computed ones of the training sentences."""
        trees = {id: (tree, [member.id for member in tree.children()]) for id, tree in self.job.trees.items()}
        return TreePredictions(self.whole, trees, self._leaf).of(id)

    def _leaf(self, id: str) -> Predictions:
        """Return the Predictions of a run: stored ones of dev, and of the training sentences by its weights."""
        run = read_run(self.registry, id)
        scores = self._scores(run)
        train = {task: Output(self.whole.splits[task]["train"].ids, array) for task, array in scores.items()}
        return Predictions({**run.predictions().outputs, "train": train})

    def _scores(self, run: Run) -> Mapping[str, np.ndarray]:
        """Return the scores [n, k] of a run on the training sentences by task, cached in the registry."""
        tasks = [task for task in run.manifest["spec"]["heads"] if task in self.job.model.trained]
        content = [run.manifest["files"][WEIGHTS]["sha256"], tasks, self.whole.sha256(), self.device.type]
        name = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
        file = self.registry.cache / f"teaching-{name}.safetensors"
        if file.exists():
            with contextlib.suppress(RegistryError):  # a damaged file is computed again
                return {task: tensor.numpy() for task, tensor in checkpoint.read(file)[0].items()}
        stored = StoredModel.of(run, self.suite, self.job.project, self.device)
        predicted = stored.predict(self.whole, ("train",), tasks, self.registry.cache, self.tick)
        scores = {task: output.scores for task, output in predicted.outputs.get("train", {}).items()}
        checkpoint.write(file, {task: torch.from_numpy(array) for task, array in scores.items()}, {})
        return scores
