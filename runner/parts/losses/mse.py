"""Squared error between score and label."""

from __future__ import annotations

import torch

from ...tasks.data import Task
from . import Loss


class SquaredError(Loss):
    """(score - label)^2; a binary label counts as -1 or 1, so that the decision threshold is 0."""

    type = "mse"
    kinds = ("binary", "regression")

    def start(self, task: Task) -> float:
        """Return the middle of a regression's range."""
        return (task.low + task.high) / 2 if task.kind == "regression" else 0.0

    def each(self, scores: torch.Tensor, labels: torch.Tensor, task: Task) -> torch.Tensor:
        """Return the loss of each example: scores [n, 1], labels [n] -> [n]."""
        target = 2 * labels - 1 if task.kind == "binary" else labels
        return (scores[:, 0] - target) ** 2
