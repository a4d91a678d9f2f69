"""Loss of the thresholds between ordered classes."""

from __future__ import annotations

import torch

from ...tasks.data import Task
from . import ClassLoss


class Coral(ClassLoss):
    """Sum over the k - 1 thresholds of the binary cross-entropy of "the class is above it", in nats.

    CORAL (Cao, Mirjalili and Raschka 2020, arXiv:1901.07884, equation 4) with equal importance of the thresholds. The
    probability of a class above a threshold is read from the class probabilities. With the head `ordered`, which has
    one score and k - 1 thresholds as in the paper, it is that of the paper; it takes any other head with k logits, too.
    """

    type = "coral"
    kinds = ("classification",)

    def each(self, scores: torch.Tensor, labels: torch.Tensor, task: Task) -> torch.Tensor:
        """Return the loss of each example: scores [n, k], labels [n] -> [n]."""
        logs = scores.log_softmax(1)
        below = logs.logcumsumexp(1)[:, :-1]  # log P(class <= j), [n, k - 1]
        above = logs.flip(1).logcumsumexp(1).flip(1)[:, 1:]  # log P(class > j)
        is_above = labels[:, None] > torch.arange(scores.shape[1] - 1, device=scores.device)
        return -torch.where(is_above, above, below).sum(1)
