"""R-Drop: consistency of two forward passes with different dropout."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from . import Regularizer, Step


class RDrop(Regularizer):
    """Averages the losses of two forward passes with different dropout and adds `alpha` times their divergence.

    Liang et al. 2021 (arXiv:2106.14448, section 2): the divergence is the mean of both KL divergences, for regression
    the squared difference of the scores. A step takes twice the time. Without dropout it has no effect.
    """

    type = "rdrop"

    alpha: float = Field(default=1.0, ge=0)
    """Weight of the divergence; the paper uses 0.1 to 1 for BERT, and 5 and more for translation."""

    def losses(self, step: Step) -> list[Tensor]:
        """Return the loss of each task."""
        first, second = step.scores(), step.scores()
        terms = zip(step.losses(first), step.losses(second), step.apart(first, second), strict=True)
        return [(a + b) / 2 + self.alpha * divergence for a, b, divergence in terms]
