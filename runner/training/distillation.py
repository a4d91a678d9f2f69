"""What a student learns from: its suite's training examples, and more sentences, with its teacher's word on each."""

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
    """A head's own loss on the labels, mixed with what the teacher says, as `Teacher` has it.

    Its labels are [n, 1 + k]: the label, nan where there is none, and the teacher's scores.
    """

    own: Loss
    """The head's."""
    share: float
    """Weight of the labels."""
    temperature: float
    """What scores are divided by, the teacher's and the student's."""

    def start(self, task: Task) -> float:
        """Return what the head's own loss does."""
        return self.own.start(task)

    def each(self, scores: Tensor, labels: Tensor, task: Task) -> Tensor:
        """Return the loss of each example: scores [n, k], labels [n, 1 + k] -> [n]."""
        label, taught = labels[:, 0], labels[:, 1:]
        known = label.isfinite()
        own = torch.where(known, self.own.each(scores, label.where(known, task.low), task), 0.0)
        return self.share * own + (1 - self.share) * self._softened(scores, taught, task)

    def _softened(self, scores: Tensor, taught: Tensor, task: Task) -> Tensor:
        """Return the loss on the teacher's scores [n, k]; T^2 keeps the size of gradients as T grows."""
        heat = self.temperature
        if task.kind == "classification":
            return heat**2 * cross_entropy(scores / heat, (taught / heat).softmax(1), reduction="none")
        if task.kind == "binary":
            return heat**2 * self.own.each(scores / heat, (taught[:, 0] / heat).sigmoid(), task)
        return self.own.each(scores, taught[:, 0], task)


def distilled(model: Model) -> Model:
    """Return a model as it is trained: where it has a teacher, with mixed losses."""
    teacher = model.teacher
    if teacher is None:
        return model
    heads = {task: head.model_copy(update={"loss": DistillationLoss(own=head.loss, share=teacher.labels,
                                                             temperature=teacher.temperature)})
             if task in model.trained else head for task, head in model.heads.items()}
    return model.model_copy(update={"heads": heads})


def targets(order: TrainingJob, data: Data, registry: Registry, device: torch.device,
           tick: Callable[[], None] = lambda: None) -> Data:
    """Return the data of a student, whose training labels are [n, 1 + k]: label, nan for none, and teacher's scores.

    `tick` may raise to stop. Raise DataError for a wrong file of sentences, RegistryError where a run is gone.
    """
    teacher = order.model.teacher
    assert teacher and isinstance(teacher.spec, Known)
    splits = dict(data.splits)
    for task in order.model.trained:
        more = teacher.unlabelled.get(task)
        train = data.splits[task]["train"]
        read = unlabelled(order.project / more, data.tasks[task]) if more else Examples((), ())
        splits[task] = {**splits[task], "train": _joined(train, read)}
    whole = replace(data, splits=splits)
    said = TeacherTargets(order, data, whole, registry, device, tick).of(teacher.spec.id)
    for task in order.model.trained:
        scores, train = said.find(whole, "train", task, teacher.spec.id), splits[task]["train"]
        if scores is None or train.labels is None:
            raise RegistryError(f"the teacher {teacher.spec.id} says nothing of `{task}`")
        taught = scores.astype(np.float64)
        if data.tasks[task].kind == "regression":
            taught = on_scale(taught, train.labels, data.tasks[task])
        splits[task] = {**splits[task], "train": replace(train, labels=np.hstack([train.labels[:, None], taught]))}
    return replace(data, splits=splits)


def unlabelled(path: Path, task: Task) -> Examples:
    """Return the sentences in a file, one example a line, the two of a pair with a tab between. Raise DataError."""
    with reported("read", path):
        rows = [(line.number, [cell.strip() for cell in line.text.split("\t")])
                for line in lines(open_file(path), str(path)) if line.text.strip()]
    wanted = "one sentence" if task.sentences == 1 else "two sentences with a tab between them"
    if wrong := [number for number, row in rows if len(row) != task.sentences or not all(row)]:
        raise DataError(*(Problem(f"a line must be {wanted}", Place(str(path), number)) for number in wrong))
    first, second = (tuple(row[side] for _, row in rows if side < len(row)) for side in (0, 1))
    return Examples(tuple(f"unlabelled:{number}" for number, _ in rows), first, second)


def _joined(train: Examples, more: Examples) -> Examples:
    """Return examples with those behind them that have no labels."""
    assert train.labels is not None
    labels = np.concatenate([train.labels, np.full(len(more), np.nan)])
    return Examples(train.ids + more.ids, train.first + more.first, train.second + more.second, labels)


def on_scale(scores: np.ndarray, labels: np.ndarray, task: Task) -> np.ndarray:
    """Return a regression's scores [n, 1] brought to the labels' scale: least squares where labels [n] are known."""
    known = np.isfinite(labels)
    slope, level = least_squares(scores[known, 0], labels[known])
    scaled: np.ndarray = slope * scores + level
    return scaled.clip(task.low, task.high)


@dataclass(frozen=True)
class TeacherTargets:
    """A teacher's tree at work on training sentences."""

    order: TrainingJob
    suite: Data
    """The examples that the leaves were trained on."""
    whole: Data
    """These, and those without labels."""
    registry: Registry
    device: torch.device
    tick: Callable[[], None]

    def of(self, id: str) -> Predictions:
        """Return a node's Predictions of dev, as they are stored, and of the training sentences."""
        trees = {id: (tree, [member.id for member in tree.children()]) for id, tree in self.order.trees.items()}
        return TreePredictions(self.whole, trees, self._leaf).of(id)

    def _leaf(self, id: str) -> Predictions:
        """Return a run's Predictions of dev, as they are stored, and of the training sentences, by its weights."""
        run = read_run(self.registry, id)
        scores = self._scores(run)
        train = {task: Output(self.whole.splits[task]["train"].ids, array) for task, array in scores.items()}
        return Predictions({**run.predictions().outputs, "train": train})

    def _scores(self, run: Run) -> Mapping[str, np.ndarray]:
        """Return a run's scores [n, k] of the training sentences by task, from the cache where they are known."""
        tasks = [task for task in run.manifest["spec"]["heads"] if task in self.order.model.trained]
        content = [run.manifest["files"][WEIGHTS]["sha256"], tasks, self.whole.sha256(), self.device.type]
        name = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
        file = self.registry.cache / f"teaching-{name}.safetensors"
        if file.exists():
            with contextlib.suppress(RegistryError):  # a damaged one is made again
                return {task: tensor.numpy() for task, tensor in checkpoint.read(file)[0].items()}
        stored = StoredModel.of(run, self.suite, self.order.project, self.device)
        predicted = stored.predict(self.whole, ("train",), tasks, self.registry.cache, self.tick)
        scores = {task: output.scores for task, output in predicted.outputs.get("train", {}).items()}
        checkpoint.write(file, {task: torch.from_numpy(array) for task, array in scores.items()}, {})
        return scores
