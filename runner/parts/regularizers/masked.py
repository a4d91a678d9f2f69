"""Masked language modelling as an auxiliary loss."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from . import Regularizer, Step


class Masked(Regularizer):
    """Adds `alpha` times the masked-LM loss of the same sentences, from a forward pass of its own.

    The masked language model of Devlin et al. 2019 (arXiv:1810.04805, section 3.1 and appendix C.2) as an auxiliary
    loss, as Chronopoulou et al. 2019 (arXiv:1902.10547) use a language model. With heads of `weight = 0` it is
    task-adaptive pretraining (Gururangan et al. 2020, arXiv:2004.10964), whose weights other models can `start` from.

    Of the selected tokens, 80 % are replaced by [MASK], 10 % by a random token, and 10 % are kept. The loss is the
    cross-entropy in nats, averaged over the selected tokens of a sentence and over the sentences, not multiplied by the
    `weight` of a head or by weights of examples. The softmax is over the tokens of the training sentences; output
    embeddings are the input embeddings, without a gradient. A step takes twice the time.
    """

    type = "masked"
    needs_tokens = True

    alpha: float = Field(default=1.0, ge=0)
    """Weight of the loss."""
    p: float = Field(default=0.15, gt=0, lt=1)
    """Probability that a token is selected."""

    def build(self, width: int) -> nn.Module:
        """Return the transform of BERT's masked-LM head: linear layer, GELU and LayerNorm."""
        return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))

    def losses(self, step: Step) -> list[Tensor]:
        """Return the loss of each task."""
        return [loss + self.alpha * masked for loss, masked in
                zip(step.losses(step.scores()), step.masked_lm_loss(self.p), strict=True)]
