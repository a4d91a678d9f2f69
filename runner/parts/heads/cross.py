"""The cross head: two sentences read as one, and a linear layer on what the encoder makes of them."""

from __future__ import annotations

import torch
from pydantic import Field

from ...tasks.data import Task
from . import Head


class Cross(Head):
    """One linear layer on the embedding of both sentences, read as one: [CLS] a [SEP] b [SEP].

    A cross-encoder, as BERT's authors judge pairs (Devlin et al. 2019, arXiv:1810.04805): the words of one sentence
    attend to those of the other. The segment embeddings tell the two apart, where the encoder has two of them.
    """

    type = "cross"
    sentences = (2,)
    joint = True

    symmetric: bool = Field(default=False, json_schema_extra={"later": True})
    """Read a pair in an order that is drawn anew each time, and in both to judge it: their mean does not depend on what
    comes first. Training takes no longer, judging twice as long."""

    @property
    def orders(self) -> int:
        """Return 2 where a pair is read in both orders."""
        return 2 if self.symmetric else 1

    def build(self, width: int, task: Task) -> torch.nn.Module:
        """Return Linear(width, k), whose bias begins where the loss wants it."""
        layer = torch.nn.Linear(width, task.outputs)
        torch.nn.init.constant_(layer.bias, self.loss.start(task))
        return layer

    def scores(self, layers: torch.nn.Module, embeddings: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Return the scores [n, k], the mean over the orders in which the pairs were read."""
        return torch.stack([layers(embedding) for embedding in embeddings]).mean(0)
