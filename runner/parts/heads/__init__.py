"""Task heads: map sentence embeddings to the scores of one task. One file per head."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, get_args

from pydantic import Field

from ...part import Part
from ...tasks.data import Kind, Task
from ..encoders.bert.architectures import Pooling
from ..losses import Loss

if TYPE_CHECKING:
    import torch


class Head(Part):
    """Maps the embeddings of an example's sentences to its scores; has a loss."""

    sentences: ClassVar[tuple[int, ...]] = (1, 2)
    """Supported numbers of sentences per example."""
    kinds: ClassVar[tuple[str, ...]] = get_args(Kind)
    """Supported kinds of task."""
    joint: ClassVar[bool] = False
    """Whether a pair is encoded as one sequence (cross-encoder); the head then gets a single embedding of it."""

    loss: Loss
    """Loss that the head is trained with."""
    weight: float = 1.0
    """Factor of this task's loss."""
    pooling: Pooling | None = Field(default=None, json_schema_extra={"later": True})
    """Sentence embedding of this task; left out: that of the encoder."""

    @property
    def orders(self) -> int:
        """Number of orders, 1 or 2, in which a joint pair is encoded.

        In training, one order is drawn per example; in evaluation, the head gets an embedding for each order.
        """
        return 1

    @abstractmethod
    def build(self, width: int, task: Task) -> torch.nn.Module:
        """Build the layers for embeddings of size `width`; an empty Module if the head has none."""

    @abstractmethod
    def scores(self, layers: torch.nn.Module, embeddings: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Return the scores [n, k] from the embeddings [n, width] of each sentence, or of joint pairs in each order."""
