"""Cross-entropy over the classes of a classification."""

from __future__ import annotations

import torch

from ..suites import Task
from . import Loss


class CrossEntropy(Loss):
    """-log softmax(scores)[label], in nats."""

    type = "cross_entropy"
    kinds = ("classification",)

    def each(self, scores: torch.Tensor, labels: torch.Tensor, task: Task) -> torch.Tensor:
        """Return the loss of each example: scores [n, k], labels [n] -> [n]."""
        return torch.nn.functional.cross_entropy(scores, labels.long(), reduction="none")
