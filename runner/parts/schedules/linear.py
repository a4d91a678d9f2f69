"""Linear warm-up, then linear decay to zero."""

from __future__ import annotations

from pydantic import Field

from . import Schedule


class Linear(Schedule):
    """Raises the rate from 0 over the first part of the run, then lowers it to 0 at its end (Devlin et al. 2019)."""

    type = "linear"

    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of all steps in which the rate rises."""

    def factor(self, step: int, steps: int) -> float:
        """Return the factor of the step's rate, in (0, 1]."""
        warmup_steps = self.warmup * steps
        return min((step + 1) / max(1.0, warmup_steps), (steps - step) / max(1.0, steps - warmup_steps), 1.0)
