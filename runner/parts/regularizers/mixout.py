"""Mixout: random replacement of weights by their initial values."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from . import Regularizer, Step


class Mixout(Regularizer):
    """Replaces each of the encoder's weights by its initial value, with probability `p` in each step.

    Lee et al. 2020 (arXiv:1909.11299, section 3): w becomes its initial value u with probability p, else
    u + (w - u) / (1 - p), so that the expectation is w; dropout is the case u = 0. The word table is excluded.
    """

    type = "mixout"
    needs_start = True

    p: float = Field(default=0.5, ge=0, lt=1)
    """Probability that a weight is replaced; the paper uses 0.7 to 0.9, instead of dropout."""

    def losses(self, step: Step) -> list[Tensor]:
        """Return the loss of each task."""
        current, mixed = step.parameters, {}
        for name, initial in step.start.items():
            mask = torch.empty_like(initial).bernoulli_(1 - self.p) / (1 - self.p)
            mixed[name] = initial + (current[name] - initial) * mask
        return step.losses(step.scores(mixed))
