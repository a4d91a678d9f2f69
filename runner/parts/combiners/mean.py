"""The mean of the task gradients."""

from __future__ import annotations

import numpy as np

from . import Combiner


class Mean(Combiner):
    """Averages the task losses, those of the heads included."""

    type = "mean"

    def shared(self, gram: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Return 1 / T for each of the T tasks."""
        return np.full(len(gram), 1 / len(gram))
