"""Cross-encoder head: a linear layer on the joint embedding of a pair."""

from __future__ import annotations

import torch
from pydantic import Field

from ...tasks.data import Task
from . import Head


class Cross(Head):
    """One linear layer on the joint embedding of a pair, [CLS] a [SEP] b [SEP].

    A cross-encoder, as in BERT (Devlin et al. 2019, arXiv:1810.04805): the tokens of each sentence attend to those of
    the other. The segment embeddings distinguish the two sentences if the encoder has two of them.
    """

    type = "cross"
    sentences = (2,)
    joint = True

    symmetric: bool = Field(default=False, json_schema_extra={"later": True})
    """Train on a random order of each pair, and average the scores of both orders in evaluation, so that they do not
    depend on the order. Training time is the same, evaluation time doubles."""

    @property
    def orders(self) -> int:
        """Return 2 if `symmetric`, else 1."""
        return 2 if self.symmetric else 1

    def build(self, width: int, task: Task) -> torch.nn.Module:
        """Return Linear(width, k) with the loss's initial bias."""
        layer = torch.nn.Linear(width, task.outputs)
        torch.nn.init.constant_(layer.bias, self.loss.start(task))
        return layer

    def scores(self, layers: torch.nn.Module, embeddings: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Return the scores [n, k], averaged over the orders of the pairs."""
        return torch.stack([layers(embedding) for embedding in embeddings]).mean(0)
