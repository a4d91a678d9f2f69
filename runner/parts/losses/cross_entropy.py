"""Cross-entropy over the classes of a classification."""

from __future__ import annotations

import torch
from pydantic import Field

from ...tasks.data import Task
from . import ClassLoss


class CrossEntropy(ClassLoss):
    """-log softmax(scores)[label], in nats."""

    type = "cross_entropy"
    kinds = ("classification",)

    smoothing: float = Field(default=0.0, ge=0, lt=1, json_schema_extra={"later": True})
    """Share of the target that is spread evenly over all classes (Szegedy et al. 2016, arXiv:1512.00567, section 7)."""

    def each(self, scores: torch.Tensor, labels: torch.Tensor, task: Task) -> torch.Tensor:
        """Return the loss of each example: scores [n, k], labels [n] -> [n]."""
        return torch.nn.functional.cross_entropy(scores, labels.long(), reduction="none",
                                                 label_smoothing=self.smoothing)
