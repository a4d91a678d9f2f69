"""Combiners: from the gradients of several tasks to one step. One file, one combiner."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from ...part import Part

if TYPE_CHECKING:
    import numpy as np


class Combiner(Part):
    """Chooses how much each task's gradient counts.

    Every method here needs no more than the Gram matrix G of the task gradients on the shared parameters,
    G[i, j] = <g_i, g_j>; the step's gradient is sum_i c_i g_i with the returned coefficients c. A head belongs to one
    task and keeps its own gradient.
    """

    needs_gram: ClassVar[bool] = False
    """False: the coefficients are constants, and weigh the losses as a whole, those of the heads included."""

    @abstractmethod
    def shared(self, gram: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Return c [T] for the shared parameters from G [T, T] float64 (where `needs_gram` is False, G is zero)."""
