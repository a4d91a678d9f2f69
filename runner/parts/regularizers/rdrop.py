"""R-Drop: two passes with different dropout are to say the same."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from . import Regularizer, Step


class RDrop(Regularizer):
    """Reads each batch twice with different dropout; the losses' mean, plus `alpha` times how far the two are apart.

    Liang et al. 2021 (arXiv:2106.14448, section 2): apart is the mean of both KL divergences, of a regression the
    squared difference of the scores. A step takes twice the time. Without dropout it changes nothing.
    """

    type = "rdrop"

    alpha: float = Field(default=1.0, ge=0)
    """Weight of the difference; the paper takes 0.1 to 1 for BERT, and 5 and more for translation."""

    def losses(self, step: Step) -> list[Tensor]:
        """Return the loss of each task."""
        one, other = step.scores(), step.scores()
        parts = zip(step.losses(one), step.losses(other), step.apart(one, other), strict=True)
        return [(first + second) / 2 + self.alpha * apart for first, second, apart in parts]
