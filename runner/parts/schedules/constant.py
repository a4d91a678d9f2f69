"""A constant learning rate."""

from __future__ import annotations

from . import Schedule


class Constant(Schedule):
    """Keeps the learning rate as it is."""

    type = "constant"

    def factor(self, step: int, steps: int) -> float:
        """Return 1."""
        return 1.0
