"""Bootstrap confidence intervals, paired significance tests, and Holm's correction for multiple tests.

n examples are drawn with replacement from n (Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapters 13
and 16), independently for each task. All systems are scored on the same draws, so that differences are paired.
A draw is a row of counts of the examples (`metric_types.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from ..lazy import deferred
from .data import Task
from .metric_types import Metric

with deferred("numpy"):
    import numpy as np

RESAMPLES = 2000

LEVEL = 0.95

ALPHA = 1 - LEVEL

BLOCK = 1 << 22
"""Maximum number of counts in memory."""


def seed(*words: str) -> int:
    """Derive the seed of the draws from strings such as suite, split and task."""
    return int.from_bytes(hashlib.sha256("\n".join(words).encode()).digest()[:8])


def draws(n: int, start: int, resamples: int) -> Iterator[np.ndarray]:
    """Yield blocks [b, n] of counts, how often each of n examples is drawn, with `resamples` rows in total.

    Indices are the high half of word * n for the raw words of a bit generator, whose stream numpy keeps stable.
    """
    words = np.random.PCG64(start)
    rows = max(1, BLOCK // n)
    for done in range(0, resamples, rows):
        b = min(rows, resamples - done)
        raw = words.random_raw((b * n + 1) // 2).view(np.uint32)[: b * n].astype(np.uint64)
        drawn = ((raw * np.uint64(n)) >> np.uint64(32)).astype(np.int64).reshape(b, n)
        drawn += n * np.arange(b)[:, None]
        yield np.bincount(drawn.ravel(), minlength=b * n).reshape(b, n)


def resampled(task: Task, metric: Metric, outcomes: np.ndarray, labels: np.ndarray, start: int,
              resamples: int = RESAMPLES) -> np.ndarray:
    """Return a metric [resamples, S] of S systems; `outcomes` [n, S] or [n, S, d] are the metric's of each system."""
    return metric.resampled(task, outcomes, labels, draws(len(labels), start, resamples))


def interval(resamples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return lower and upper end [S] of the percentile interval (confidence LEVEL) of metrics [resamples, S]."""
    low, high = np.quantile(resamples, [ALPHA / 2, 1 - ALPHA / 2], axis=0)
    return low, high


def wilson(n: int) -> float:
    """Return the lower end of the interval (confidence LEVEL) of a share of which n of n were seen (Wilson 1927).

    The draws of a bootstrap are then all alike. The upper end for 0 of n is 1 less this.
    """
    from scipy.special import ndtri  # slow import, which most commands do not need

    z = float(ndtri(1 - ALPHA / 2))
    return n / (n + z * z)


def mcnemar(correct: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the p-values [S, S] of the exact McNemar test (McNemar 1947) between pairs of 0/1 columns [n, S].

    p = 2 P(X <= the smaller discordant count) for X ~ Binomial(discordant examples, 1 / 2). `scores` [S] are the
    accuracies that are compared; if they are honest, and so not the means of the columns, the discordant examples are
    divided to match the difference of the scores, rounded in favour of equality.
    """
    from scipy.special import bdtr  # slow import, which most commands do not need

    ones = correct.astype(np.float64)
    only_row = ones.T @ (1 - ones)  # [S, S]: examples that the row's system has right and the column's has wrong
    discordant = only_row + only_row.T
    smaller = (discordant - len(correct) * np.abs(scores[:, None] - scores)) / 2
    count = np.clip(np.ceil(smaller - 0.01), 0, discordant // 2)  # scores are rounded to 6 digits
    p: np.ndarray = np.minimum(1.0, 2 * bdtr(count, discordant.astype(np.intp), 0.5))
    return p


def paired(scores: np.ndarray, points: np.ndarray, resamples: np.ndarray) -> np.ndarray:
    """Return the p-values [S, S] of the two-sided paired bootstrap test of scores [S].

    p is the share of draws in which the difference deviates from that of the point estimates `points` [S] at least as
    much as the difference of the scores deviates from 0; the observation itself is included. `resamples` are [b, S].
    """
    p = np.ones((len(scores), len(scores)))
    for i in range(len(scores)):
        deviation = np.abs(resamples[:, i : i + 1] - resamples - (points[i] - points))
        extreme = deviation >= np.abs(scores[i] - scores) - 1e-12
        p[i] = (1 + extreme.sum(axis=0)) / (1 + len(resamples))
    return p


def holm(p: Sequence[float]) -> list[float]:
    """Return Holm-adjusted p-values (Holm 1979) in the order of `p`."""
    adjusted, least = list(p), 0.0
    for rank, position in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        least = max(least, min(1.0, (len(p) - rank) * p[position]))
        adjusted[position] = least
    return adjusted
