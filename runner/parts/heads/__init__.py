"""Heads: from sentence embeddings to the scores of one task. One file, one head."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from ...part import Part
from ...tasks.data import Task
from ..losses import Loss

if TYPE_CHECKING:
    import torch


class Head(Part):
    """Turns the embeddings of an example's sentences into its scores, and names the loss that trains it."""

    sentences: ClassVar[tuple[int, ...]] = (1, 2)
    """How many sentences an example may have."""
    joint: ClassVar[bool] = False
    """Whether the two sentences of an example are read as one; the head then gets a single embedding, that of both."""

    loss: Loss
    """What the head is trained to make small."""
    weight: float = 1.0
    """Factor of this task's loss."""

    @property
    def orders(self) -> int:
        """In how many orders, 1 or 2, sentences that are read as one are read: in training one drawn for each example,
        else all, and the head then gets an embedding of each."""
        return 1

    @abstractmethod
    def build(self, width: int, task: Task) -> torch.nn.Module:
        """Return the layers to be trained; embeddings have `width` numbers. An empty Module where there are none."""

    @abstractmethod
    def scores(self, layers: torch.nn.Module, embeddings: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Return the scores [n, k] from an embedding [n, width] of each sentence, or of both as one in each order."""
