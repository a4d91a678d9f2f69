"""Linear head for single sentences."""

from __future__ import annotations

import torch

from ...tasks.data import Task
from . import Head


class Linear(Head):
    """One linear layer on the sentence embedding."""

    type = "linear"
    sentences = (1,)

    def build(self, width: int, task: Task) -> torch.nn.Module:
        """Return Linear(width, k)."""
        return torch.nn.Linear(width, task.outputs)

    def scores(self, layers: torch.nn.Module, embeddings: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Return the logits [n, k]."""
        scores: torch.Tensor = layers(embeddings[0])
        return scores
