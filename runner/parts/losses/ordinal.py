"""Cross-entropy with soft labels for ordered classes."""

from __future__ import annotations

import torch
from pydantic import Field

from ...tasks.data import Task
from . import ClassLoss


class Ordinal(ClassLoss):
    """Cross-entropy, in nats, with a target that falls with the distance from the label.

    The target probability of class i for label y is softmax(-steepness |i - y|): the soft labels of Díaz and Marathe
    2019 (CVPR, "Soft Labels for Ordinal Regression", equation 1) with the absolute difference of the class numbers.
    """

    type = "ordinal"
    kinds = ("classification",)

    steepness: float = Field(default=2.0, gt=0)
    """Decay of the target per class: with 2, a label in the middle of five has 0.76, each of its neighbours 0.10."""

    def each(self, scores: torch.Tensor, labels: torch.Tensor, task: Task) -> torch.Tensor:
        """Return the loss of each example: scores [n, k], labels [n] -> [n]."""
        classes = torch.arange(scores.shape[1], device=scores.device)
        target = (-self.steepness * (classes - labels[:, None]).abs()).softmax(1)  # [n, k]
        return torch.nn.functional.cross_entropy(scores, target, reduction="none")
