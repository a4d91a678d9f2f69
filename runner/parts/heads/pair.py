"""Linear head on two concatenated sentence embeddings."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from ...tasks.data import Task
from . import Head


class Pair(Head):
    """One linear layer on the concatenation of features of the embeddings u and v."""

    type = "pair"
    sentences = (2,)

    features: tuple[Literal["u", "v", "|u-v|", "u*v"], ...] = Field(default=("u", "v"), min_length=1)
    """Features to concatenate; `|u-v|` and `u*v` are symmetric and make sentences easier to compare."""

    def build(self, width: int, task: Task) -> torch.nn.Module:
        """Return Linear(width * len(features), k) with the loss's initial bias."""
        layer = torch.nn.Linear(width * len(self.features), task.outputs)
        torch.nn.init.constant_(layer.bias, self.loss.start(task))
        return layer

    def scores(self, layers: torch.nn.Module, embeddings: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Return the scores [n, k]."""
        u, v = embeddings
        features = {"u": u, "v": v, "|u-v|": (u - v).abs(), "u*v": u * v}
        scores: torch.Tensor = layers(torch.cat([features[name] for name in self.features], dim=1))
        return scores
