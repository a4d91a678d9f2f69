"""Loss functions of heads. One file per loss."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ...lazy import deferred
from ...part import Part
from ...tasks.data import Task

if TYPE_CHECKING:
    import torch

with deferred("numpy"):
    import numpy as np


class Loss(Part):
    """A loss over the scores of one task."""

    kinds: ClassVar[tuple[str, ...]] = ()
    """Supported kinds of task."""

    def start(self, task: Task) -> float:
        """Return the initial bias of a head, near the mean of the labels, so that training need not learn it."""
        return 0.0

    @abstractmethod
    def each(self, scores: torch.Tensor, labels: torch.Tensor, task: Task) -> torch.Tensor:
        """Return the per-example loss (no reduction): scores [n, k], labels [n] float -> [n].

        Labels of a multi-label task are [n, k].
        """

    def weights(self, labels: np.ndarray, task: Task) -> np.ndarray | None:
        """Return factors [n] of the losses of all training examples by their labels; None for 1."""
        return None

    def misfit(self, task: Task) -> tuple[str, str] | None:
        """Return a field of the loss that does not fit a task, and why; None if all do."""
        return None


class ClassLoss(Loss):
    """A loss over classes, whose examples may be weighted by their class."""

    class_weights: Literal["balanced"] | tuple[Annotated[float, Field(gt=0)], ...] | None = Field(
        default=None, json_schema_extra={"later": True})
    """Factor of the loss by class; `balanced` is n / (k n_c) for a class of n_c of n training examples, which gives all
    k classes that occur the same sum (as in scikit-learn). A step's loss stays the mean over its examples."""

    def weights(self, labels: np.ndarray, task: Task) -> np.ndarray | None:
        """Return the weight of each example's class, float64 [n]; 1 without a label."""
        if self.class_weights is None:
            return None
        known = np.isfinite(labels)
        classes = np.where(known, labels, 0).astype(int)
        if self.class_weights == "balanced":
            sizes = np.bincount(classes[known], minlength=max(task.outputs, 2))
            by_class = known.sum() / (np.count_nonzero(sizes) * np.maximum(sizes, 1))
        else:
            by_class = np.array(self.class_weights)
        return np.where(known, by_class[classes], 1.0)

    def misfit(self, task: Task) -> tuple[str, str] | None:
        """Return `class_weights` where a task has no classes, or another number of them."""
        if self.class_weights is None:
            return None
        if task.kind not in ("classification", "binary"):
            return "class_weights", f"class weights are for one class an example, and this is a {task.kind} task"
        count, given = max(task.outputs, 2), len(self.class_weights)
        if self.class_weights != "balanced" and given != count:
            return "class_weights", f"there are {given} class weights for {count} classes"
        return None

