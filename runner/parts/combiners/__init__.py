"""Combiners: combination of the gradients of several tasks. One file per combiner."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from ...part import Part

if TYPE_CHECKING:
    import numpy as np


class Combiner(Part):
    """Combines the gradients of the tasks: computes a coefficient for each.

    The only input is the Gram matrix G of the task gradients on the shared parameters, G[i, j] = <g_i, g_j>; the
    gradient of the step is sum_i c_i g_i with the returned coefficients c. A head belongs to one task and keeps its own
    gradient.
    """

    needs_gram: ClassVar[bool] = False
    """False: the coefficients are constants, applied to the losses, which also scales the gradients of heads."""

    @abstractmethod
    def shared(self, gram: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Return the coefficients c [T] from G [T, T] float64, which is zero if `needs_gram` is False."""
