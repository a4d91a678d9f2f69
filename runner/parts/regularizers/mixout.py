"""Mixout: in every step some weights are those that training began with."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from . import Regularizer, Step


class Mixout(Regularizer):
    """Replaces each of the encoder's weights by the one that training began with, with probability `p` in each step.

    Lee et al. 2020 (arXiv:1909.11299, section 3): w becomes u where it is replaced and u + (w - u) / (1 - p) where
    not, so that its mean stays w; dropout is the same with u = 0. All parameters but the word table take part.
    """

    type = "mixout"
    needs_start = True

    p: float = Field(default=0.5, ge=0, lt=1)
    """Probability that a weight is replaced; the paper takes 0.7 to 0.9, in place of dropout."""

    def losses(self, step: Step) -> list[Tensor]:
        """Return the loss of each task."""
        now, mixed = step.parameters, {}
        for name, begun in step.start.items():
            kept = torch.empty_like(begun).bernoulli_(1 - self.p) / (1 - self.p)
            mixed[name] = begun + (now[name] - begun) * kept
        return step.losses(step.scores(mixed))
