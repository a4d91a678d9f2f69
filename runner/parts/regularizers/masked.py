"""Masked words: the encoder also guesses words that are hidden from it, as when it was pretrained."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from . import Regularizer, Step


class Masked(Regularizer):
    """Adds `alpha` times the loss of guessing hidden words of the same sentences, in a pass of its own.

    The masked language model of Devlin et al. 2019 (arXiv:1810.04805, section 3.1 and appendix C.2) beside the tasks'
    losses, as Chronopoulou et al. 2019 (arXiv:1902.10547) have a language model there. With heads of `weight = 0` it
    is further pretraining on the task's texts (Gururangan et al. 2020, arXiv:2004.10964), for others to `start` with.

    Of the words that are chosen 8 in 10 are hidden, 1 is another one and 1 is left. The loss is the mean of -log p in
    nats over a sentence's chosen words, and over the sentences; a head's `weight` is no part of it. p is over the words
    of the training sentences, from their embeddings, which learn as inputs only. A step takes twice the time.
    """

    type = "masked"
    needs_tokens = True

    alpha: float = Field(default=1.0, ge=0)
    """Weight of the loss."""
    p: float = Field(default=0.15, gt=0, lt=1)
    """Probability that a word is chosen."""

    def build(self, width: int) -> nn.Module:
        """Return what turns a state into a guess: BERT's linear layer, GELU and LayerNorm."""
        return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))

    def losses(self, step: Step) -> list[Tensor]:
        """Return the loss of each task."""
        return [loss + self.alpha * missed for loss, missed in zip(step.losses(step.scores()), step.missed(self.p),
                                                                   strict=True)]
