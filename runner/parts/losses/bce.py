"""Binary cross-entropy on one logit, with soft targets for a regression."""

from __future__ import annotations

import torch

from ...tasks.data import Task
from . import Loss


class BinaryCrossEntropy(Loss):
    """Binary cross-entropy of sigmoid(score); a regression's label counts as (label - low) / (high - low)."""

    type = "bce"
    kinds = ("binary", "regression")

    def each(self, scores: torch.Tensor, labels: torch.Tensor, task: Task) -> torch.Tensor:
        """Return the loss of each example: scores [n, 1], labels [n] -> [n]."""
        target = task.share(labels)
        return torch.nn.functional.binary_cross_entropy_with_logits(scores[:, 0], target, reduction="none")
