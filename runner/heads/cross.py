"""The cross head: two sentences read as one, and a linear layer on what the encoder makes of them."""

from __future__ import annotations

import torch

from ..suites import Task
from . import Head


class Cross(Head):
    """One linear layer on the embedding of both sentences, read as one: [CLS] a [SEP] b [SEP].

    A cross-encoder, as BERT's authors judge pairs (Devlin et al. 2019, arXiv:1810.04805): the words of one sentence
    attend to those of the other. The segment embeddings tell the two apart, where the encoder has two of them.
    """

    type = "cross"
    sentences = (2,)
    joint = True

    def build(self, width: int, task: Task) -> torch.nn.Module:
        """Return Linear(width, k), whose bias begins where the loss wants it."""
        layer = torch.nn.Linear(width, task.outputs)
        torch.nn.init.constant_(layer.bias, self.loss.start(task))
        return layer

    def scores(self, layers: torch.nn.Module, embeddings: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Return the scores [n, k]."""
        scores: torch.Tensor = layers(embeddings[0])
        return scores
