"""How far scores can be trusted: bootstrap intervals, paired tests, and Holm's correction for many of them.

Examples are drawn with replacement as often as there are (Efron and Tibshirani 1993, An Introduction to the Bootstrap,
chapters 13 and 16), for each task of its own. All systems are scored on the same draws, so that differences are paired.
A draw is a row of counts, which turns every metric into a product of matrices. All sums are of whole numbers below
2^53: they are exact in any order, so that neither the threads nor the kernels of a BLAS change a digit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence

from ..lazy import deferred
from .data import Task

with deferred("numpy"):
    import numpy as np

RESAMPLES = 2000

LEVEL = 0.95

ALPHA = 1 - LEVEL

BLOCK = 1 << 22
"""Most counts in memory at a time."""

GRID = 1 << 14
"""Steps of one standard deviation to which what is correlated is rounded."""


def seed(*words: str) -> int:
    """Return the seed of the draws of a split and task of a suite."""
    return int.from_bytes(hashlib.sha256("\n".join(words).encode()).digest()[:8])


def draws(n: int, start: int, resamples: int) -> Iterator[np.ndarray]:
    """Yield blocks [b, n] of how often each of n examples is drawn, `resamples` rows in all.

    Made of a bit generator's raw words, which numpy promises never to change: the high half of word * n.
    """
    words = np.random.PCG64(start)
    rows = max(1, BLOCK // n)
    for done in range(0, resamples, rows):
        b = min(rows, resamples - done)
        raw = words.random_raw((b * n + 1) // 2).view(np.uint32)[: b * n].astype(np.uint64)
        drawn = ((raw * np.uint64(n)) >> np.uint64(32)).astype(np.int64).reshape(b, n)
        drawn += n * np.arange(b)[:, None]
        yield np.bincount(drawn.ravel(), minlength=b * n).reshape(b, n)


def resampled(task: Task, outcomes: np.ndarray, labels: np.ndarray, start: int,
              resamples: int = RESAMPLES) -> np.ndarray:
    """Return the metric [resamples, S] of S systems, whose `scores.outcomes` are the columns of `outcomes` [n, S]."""
    blocks = draws(len(labels), start, resamples)
    if task.kind == "regression":
        x, y = gridded(outcomes), gridded(labels[:, None].astype(np.float64))
        return np.concatenate([_correlations(counts.astype(np.float64), x, y) for counts in blocks])
    right = outcomes.astype(np.float32)  # sums of up to 2^24 examples are exact
    return np.concatenate([(counts.astype(np.float32) @ right).astype(np.float64) / len(labels) for counts in blocks])


def gridded(values: np.ndarray) -> np.ndarray:
    """Return columns [n, S] less their mean, as whole numbers of steps; zeros where a column is constant."""
    centred = values - values.mean(axis=0)
    deviation = np.sqrt((centred * centred).mean(axis=0))
    constant = (values == values[:1]).all(axis=0)
    return np.where(constant, 0.0, np.rint(centred * (GRID / np.where(constant | (deviation == 0), 1.0, deviation))))


def _correlations(counts: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return Pearson's r [b, S] of x [n, S] and y [n, 1] under counts [b, n]; 0 where a draw leaves one constant."""
    n = x.shape[0]
    sum_x, sum_y = counts @ x, counts @ y
    covariance = n * (counts @ (x * y)) - sum_x * sum_y
    spread = (n * (counts @ (x * x)) - sum_x**2) * (n * (counts @ (y * y)) - sum_y**2)
    r: np.ndarray = np.clip(covariance / np.sqrt(np.where(spread > 0, spread, np.inf)), -1.0, 1.0)
    return r


def overall(metrics: Mapping[str, np.ndarray], tasks: Mapping[str, Task]) -> np.ndarray:
    """Return the mean over the tasks of metrics of any shape, a correlation r counted as (r + 1) / 2."""
    shares = [(metrics[name] + 1) / 2 if task.kind == "regression" else metrics[name] for name, task in tasks.items()]
    return np.asarray(sum(shares) / np.float64(len(tasks)))


def interval(resamples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the percentile interval of LEVEL of metrics [resamples, S]: both ends [S]."""
    low, high = np.quantile(resamples, [ALPHA / 2, 1 - ALPHA / 2], axis=0)
    return low, high


def mcnemar(right: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the p-values [S, S] of the exact McNemar test of columns [n, S] of ones and zeros, in pairs.

    Of the examples that only one of two systems has right, each has half: 2 P(X <= the smaller share) (McNemar 1947).
    `scores` [S] are the accuracies that are compared. Where they are not those of the columns, since they are honest,
    these examples are shared out as the difference of the scores demands, a fraction in favour of equality.
    """
    from scipy.special import bdtr  # here, since most commands test nothing

    ones = right.astype(np.float64)
    mine = ones.T @ (1 - ones)  # [S, S]: examples that the row has right and the column has not
    apart = mine + mine.T
    smaller = (apart - len(right) * np.abs(scores[:, None] - scores)) / 2
    share = np.clip(np.ceil(smaller - 0.01), 0, apart // 2)  # scores are rounded to 6 digits
    p: np.ndarray = np.minimum(1.0, 2 * bdtr(share, apart.astype(np.intp), 0.5))
    return p


def paired(scores: np.ndarray, points: np.ndarray, resamples: np.ndarray) -> np.ndarray:
    """Return the p-values [S, S] of the paired bootstrap test of scores [S], two-sided.

    The share of draws whose difference is as far from that of the `points` [S], around which the `resamples` [b, S]
    are, as the difference of the scores is from 0; what was observed is counted in.
    """
    p = np.ones((len(scores), len(scores)))
    for i in range(len(scores)):
        away = np.abs(resamples[:, i : i + 1] - resamples - (points[i] - points))
        far = away >= np.abs(scores[i] - scores) - 1e-12
        p[i] = (1 + far.sum(axis=0)) / (1 + len(resamples))
    return p


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values corrected for being several (Holm 1979), each at its place."""
    adjusted, least = list(p), 0.0
    for rank, position in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        least = max(least, min(1.0, (len(p) - rank) * p[position]))
        adjusted[position] = least
    return adjusted
