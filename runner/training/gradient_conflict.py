"""How far the gradients of the tasks work against each other, as sums over the steps of an epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

STEPS, OPPOSED = "steps", "opposed"
"""Keys besides the pairs: steps that were looked at, and those at which two gradients point apart."""


def added(sums: Mapping[str, float], tasks: Sequence[str], gram: np.ndarray) -> dict[str, float]:
    """Return the sums with one more step's, of its inner products [T, T] of the gradients of sorted tasks.

    A pair `TASK/TASK` sums up the cosine of its gradients, 0 where one of them is zero.
    """
    lengths = np.sqrt(gram.diagonal())
    sizes = np.outer(lengths, lengths)
    cosines = np.divide(gram, sizes, out=np.zeros_like(gram), where=sizes > 0)
    new = {f"{tasks[i]}/{tasks[j]}": float(cosines[i, j]) for i, j in combinations(range(len(tasks)), 2)}
    new |= {STEPS: 1, OPPOSED: float(min(new.values()) < 0)}
    return {key: sums.get(key, 0.0) + value for key, value in new.items()}


def summary(sums: Mapping[str, float]) -> dict[str, Any]:
    """Return what an epoch's entry of the history says: mean cosines, the share of steps at which PCGrad would act."""
    if not sums:
        return {}
    steps = sums[STEPS]
    pairs = {pair: total / steps for pair, total in sums.items() if "/" in pair}
    return {"conflict": {"pairs": pairs, "share": sums[OPPOSED] / steps, "steps": int(steps)}}
