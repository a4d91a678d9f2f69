"""Gradient surgery: projecting conflicting gradients (PCGrad)."""

from __future__ import annotations

import numpy as np

from . import Combiner


class PCGrad(Combiner):
    """Projects conflicting task gradients onto each other's normal planes, then sums them.

    Algorithm 1 of Yu et al. 2020, "Gradient Surgery for Multi-Task Learning" (arXiv:2001.06782), on the shared
    parameters as one vector: for each task, in an independent random order of the other tasks, the gradient is
    projected onto the normal plane of every *original* gradient that it conflicts with. A projected gradient stays a
    linear combination of the originals, so that the algorithm runs on the Gram matrix, exactly.
    """

    type = "pcgrad"
    needs_gram = True

    def shared(self, gram: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Return the coefficients [T] of the sum of the projected gradients."""
        tasks = len(gram)
        total = np.zeros(tasks)
        for task in range(tasks):
            projected = np.eye(tasks)[task]  # coefficients [T] of this task's projected gradient
            for other in random.permutation([t for t in range(tasks) if t != task]):
                inner = projected @ gram[:, other]  # <g_task^PC, g_other>
                if inner < 0:
                    projected[other] -= inner / gram[other, other]
            total += projected
        return total
