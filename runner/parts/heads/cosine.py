"""Cosine-similarity head without trainable layers."""

from __future__ import annotations

import torch
from pydantic import Field

from ...tasks.data import Task
from . import Head


class Cosine(Head):
    """The cosine of two sentence embeddings, times `scale`."""

    type = "cosine"
    sentences = (2,)
    kinds = ("binary", "regression")

    scale: float = Field(default=5.0, gt=0)
    """Factor of the cosine: 5 for labels from 0 to 5 or as a logit, 1 for the cosine-embedding loss."""

    def build(self, width: int, task: Task) -> torch.nn.Module:
        """Return an empty module."""
        return torch.nn.Module()

    def scores(self, layers: torch.nn.Module, embeddings: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Return the scaled cosines [n, 1]."""
        u, v = embeddings
        return self.scale * torch.nn.functional.cosine_similarity(u, v, dim=1)[:, None]
