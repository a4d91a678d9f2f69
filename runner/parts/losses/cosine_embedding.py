"""Cosine-embedding loss, for heads whose score is an unscaled cosine."""

from __future__ import annotations

import torch
from pydantic import Field

from ...tasks.data import Task
from . import Loss


class CosineEmbedding(Loss):
    """y (1 - s) + (1 - y) max(0, s - margin), with y the label's share of its range.

    At y = 1 and y = 0 this is torch's CosineEmbeddingLoss for targets 1 and -1; between them it is linear in y. The
    score s must be a cosine: use it with the head `cosine` and `scale = 1.0`.
    """

    type = "cosine_embedding"
    kinds = ("binary", "regression")

    margin: float = Field(default=0.0, ge=-1, le=1)
    """Cosine below which a dissimilar pair has no loss."""

    def each(self, scores: torch.Tensor, labels: torch.Tensor, task: Task) -> torch.Tensor:
        """Return the loss of each example: scores [n, 1] in [-1, 1], labels [n] -> [n]."""
        share, score = task.share(labels), scores[:, 0]
        return share * (1 - score) + (1 - share) * (score - self.margin).clamp(min=0)
