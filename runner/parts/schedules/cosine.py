"""Linear warm-up, then half a cosine to zero."""

from __future__ import annotations

import math

from pydantic import Field

from . import Schedule


class Cosine(Schedule):
    """Raises the rate from 0 over the first part of the run, then lowers it to 0 at its end along half a cosine.

    The cosine is that of Loshchilov and Hutter 2017 (arXiv:1608.03983), without restarts.
    """

    type = "cosine"

    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of all steps in which the rate rises."""

    def factor(self, step: int, steps: int) -> float:
        """Return the factor of the step's rate, in (0, 1]."""
        warmup_steps = self.warmup * steps
        progress = max(0.0, step - warmup_steps) / max(1.0, steps - warmup_steps)
        return min((step + 1) / max(1.0, warmup_steps), (1 + math.cos(math.pi * progress)) / 2)
