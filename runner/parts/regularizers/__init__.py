"""Regularizers: computation of the training losses of one step. One file per regularizer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Protocol

from ...part import Part

if TYPE_CHECKING:
    from torch import Tensor, nn


class Step(Protocol):
    """Interface of a regularizer to the network and one batch or micro-batch.

    Lists have one entry per trained task; mappings of scores have task names as keys.
    """

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """The encoder's parameters by name, [...], or banks [T, ...] with T equal rows.

        The word table may be reduced to the rows of the batch's tokens. Gradients are taken with respect to these.
        """
    @property
    def start(self) -> Mapping[str, Tensor]:
        """The encoder's initial parameters [...] without the word table, if `needs_start` is True."""
    @property
    def words(self) -> Tensor:
        """The word embeddings [N, width] of all tokens of the batch, detached."""
    def scores(self, parameters: Mapping[str, Tensor] | None = None, noise: Tensor | None = None) -> dict[str, Tensor]:
        """Run one forward pass with fresh dropout masks and return the scores [n, k] of each task.

        `parameters` replace those of the encoder by name; `noise` [N, width] is added to the word embeddings.
        """
    def losses(self, scores: Mapping[str, Tensor]) -> list[Tensor]:
        """Return the losses, averaged over examples and multiplied by the head's `weight` and the examples' weights."""
    def apart(self, first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> list[Tensor]:
        """Symmetric KL divergence between two forward passes (squared error for regression), weighted like the losses.

        It is (KL(p, q) + KL(q, p)) / 2 in nats, averaged over the examples, and over the labels of a multi-label task.
        """
    def masked_lm_loss(self, p: float) -> list[Tensor]:
        """Masked-LM cross-entropy in nats, from a forward pass of its own on corrupted tokens.

        Each token is selected with probability `p`; the loss is averaged over the selected tokens of a sentence, then
        over the examples. The prediction layers are those of `build`. Needs an encoder with `has_token_states`.
        """
    def detached(self) -> Step:
        """Return the step with the encoder's parameters detached, for passes that need no gradient of them."""


class Regularizer(Part):
    """Computes the losses of one step: number of forward passes, their parameters, and added terms."""

    needs_start: ClassVar[bool] = False
    """Whether `Step.start`, a copy of the initial weights, is needed."""
    needs_words: ClassVar[bool] = False
    """Whether `Step.words` or noise on them is used, which needs an encoder with `has_word_table`."""
    needs_tokens: ClassVar[bool] = False
    """Whether `Step.masked_lm_loss` is used, which needs an encoder with `has_token_states`."""

    def build(self, width: int) -> nn.Module:
        """Build the regularizer's own layers, trained with the network, for embeddings of size `width`."""
        from torch import nn

        return nn.Module()

    @abstractmethod
    def losses(self, step: Step) -> list[Tensor]:
        """Return the loss of each trained task; without a regularizer, `step.losses(step.scores())`."""
