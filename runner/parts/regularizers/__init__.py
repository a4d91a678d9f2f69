"""Regularizers: how the losses of one step come about. One file, one regularizer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Protocol

from ...part import Part

if TYPE_CHECKING:
    from torch import Tensor, nn


class Step(Protocol):
    """The batch of one step, or a part of it, and the network that learns from it.

    What is a list has one entry for each trained task, what is a mapping is by the task's name.
    """

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """The encoder's parameters by name, [...], or with a leading task dimension [T, ...] whose T rows are equal.

        Of the word table there are the rows that the batch needs. Gradients are taken with respect to these.
        """
    @property
    def start(self) -> Mapping[str, Tensor]:
        """The encoder's parameters as training began, [...], but for the word table; where `needs_start` is True."""
    @property
    def words(self) -> Tensor:
        """The word embeddings [N, width] of all tokens of the batch, without a gradient."""
    def scores(self, parameters: Mapping[str, Tensor] | None = None, noise: Tensor | None = None) -> dict[str, Tensor]:
        """Return the scores [n, k] of one pass, in which dropout is drawn anew.

        `parameters` stand in for the encoder's of these names; `noise` [N, width] is added to the word embeddings.
        """
    def losses(self, scores: Mapping[str, Tensor]) -> list[Tensor]:
        """Return the losses, each the mean over the examples times the head's `weight`."""
    def apart(self, one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[Tensor]:
        """Return how far two passes' scores are apart, as a mean and weighted as the losses are.

        It is the mean of KL(p, q) and KL(q, p) of the probabilities that they stand for, in nats; of a regression the
        squared difference of the scores.
        """
    def missed(self, p: float) -> list[Tensor]:
        """Return how badly chosen words are guessed in one pass that hides them, as a mean over the examples.

        It is the mean of -log probability, in nats, over the words of a sentence, each chosen with probability `p`, by
        the layers that the regularizer has built. The encoder `tells_tokens`.
        """
    def still(self) -> Step:
        """Return the step with constants for the encoder's parameters: a pass that needs no gradient of theirs."""


class Regularizer(Part):
    """Decides how the losses of one step come about: by how many passes, with what weights, and what is added."""

    needs_start: ClassVar[bool] = False
    """Whether the weights that training began with are kept at hand."""
    needs_tokens: ClassVar[bool] = False
    """Whether `missed` is asked for, and so an encoder that `tells_tokens`."""

    def build(self, width: int) -> nn.Module:
        """Return layers of the regularizer's own, which are trained too; embeddings have `width` numbers."""
        from torch import nn

        return nn.Module()

    @abstractmethod
    def losses(self, step: Step) -> list[Tensor]:
        """Return the loss of each trained task; without a regularizer it would be `step.losses(step.scores())`."""
