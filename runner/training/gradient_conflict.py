"""Gradient conflict between tasks (cosine similarities of their gradients), accumulated over an epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

STEPS, OPPOSED = "steps", "opposed"
"""Keys besides the pairs: number of measured steps, and of those with a negative cosine."""


def accumulate(sums: Mapping[str, float], tasks: Sequence[str], gram: np.ndarray) -> dict[str, float]:
    """Return the sums plus those of one step, from the Gram matrix [T, T] of the gradients of the sorted tasks.

    The key `TASK/TASK` holds the sum of the cosines of the two gradients; a cosine is 0 if one gradient is zero.
    """
    norms = np.sqrt(gram.diagonal())
    products = np.outer(norms, norms)
    cosines = np.divide(gram, products, out=np.zeros_like(gram), where=products > 0)
    new = {f"{tasks[i]}/{tasks[j]}": float(cosines[i, j]) for i, j in combinations(range(len(tasks)), 2)}
    new |= {STEPS: 1, OPPOSED: float(min(new.values()) < 0)}
    return {key: sums.get(key, 0.0) + value for key, value in new.items()}


def summary(sums: Mapping[str, float]) -> dict[str, Any]:
    """Return the history entry of an epoch: mean cosines, and the share of steps at which PCGrad would project."""
    if not sums:
        return {}
    steps = sums[STEPS]
    pairs = {pair: total / steps for pair, total in sums.items() if "/" in pair}
    return {"conflict": {"pairs": pairs, "share": sums[OPPOSED] / steps, "steps": int(steps)}}
