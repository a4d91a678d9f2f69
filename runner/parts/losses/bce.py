"""Binary cross-entropy on logits, with soft targets for a regression."""

from __future__ import annotations

import torch
from pydantic import Field

from ...tasks.data import Task
from . import ClassLoss


class BinaryCrossEntropy(ClassLoss):
    """Binary cross-entropy of sigmoid(score); a regression's label counts as (label - low) / (high - low).

    The loss of a multi-label task is the mean over its labels, so that it does not grow with their number.
    """

    type = "bce"
    kinds = ("binary", "multilabel", "regression")

    smoothing: float = Field(default=0.0, ge=0, lt=1, json_schema_extra={"later": True})
    """Share of the target that is divided evenly between yes and no."""

    def each(self, scores: torch.Tensor, labels: torch.Tensor, task: Task) -> torch.Tensor:
        """Return the loss of each example: scores [n, k], labels [n] or [n, k] -> [n]."""
        target = task.share(labels)
        if self.smoothing:
            target = target * (1 - self.smoothing) + self.smoothing / 2
        if task.kind == "multilabel":
            return torch.nn.functional.binary_cross_entropy_with_logits(scores, target, reduction="none").mean(1)
        return torch.nn.functional.binary_cross_entropy_with_logits(scores[:, 0], target, reduction="none")
