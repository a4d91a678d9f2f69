"""The sum of the task gradients."""

from __future__ import annotations

import numpy as np

from . import Combiner


class Sum(Combiner):
    """Adds the task losses."""

    type = "sum"

    def shared(self, gram: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Return ones."""
        return np.ones(len(gram))
