"""The loss of a student: its labels' and its teacher's (Hinton et al. 2015, arXiv:1503.02531)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from .losses import Loss
from .spec import Model
from .suites import Task


class Distilled(Loss):
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
    heads = {task: head.model_copy(update={"loss": Distilled(own=head.loss, share=teacher.labels,
                                                             temperature=teacher.temperature)})
             if task in model.trained else head for task, head in model.heads.items()}
    return model.model_copy(update={"heads": heads})
