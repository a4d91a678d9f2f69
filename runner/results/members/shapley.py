"""Contributions of the members of an ensemble (Shapley values, leave-one-out), and smaller ensembles.

The value of a coalition is its score; that of the empty coalition is the score of predicting the most frequent label.
The Shapley value (Shapley 1953) of a member is its mean gain over all orders in which the members can join: exact, over
all coalitions, for up to 12 members; else over random orders (Castro et al. 2009), each with its rotations and their
reverses. It is linear in the values, so its interval follows from bootstrap resamples of the coalitions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...tasks import bootstrap
from ...tasks.bootstrap import interval, resampled
from ...tasks.metrics import OVERALL, leading, weighted
from .agreement import Agreement, agreements
from .subtrees import EnsembleSubsets, Player

EXACT = 12
"""Maximal number of members for which all coalitions are evaluated."""

COALITIONS = 1 << EXACT
"""Approximate number of coalitions evaluated for more members."""

RESAMPLES = 1000

CHUNK = 1024
"""Number of coalitions resampled at a time."""


@dataclass(frozen=True)
class Estimate:
    """An estimate with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Contribution:
    """Contribution of one member, in the unit of scores."""

    player: Player
    alone: float
    left_out: Estimate
    """Loss of the whole ensemble without the member."""
    shapley: Estimate
    by_task: dict[str, float]
    """Shapley values in the leading metric of each task, positive where the member makes it better."""
    inference: float | None
    """Seconds to predict 1,000 sentences, if measured."""


@dataclass(frozen=True)
class SmallerEnsemble:
    """A smaller tree with its score."""

    coalition: int
    score: float


@dataclass(frozen=True)
class Contributions:
    """Contributions of all members of one tree, their agreement, and the best smaller trees."""

    subsets: EnsembleSubsets
    whole: Estimate
    nothing: float
    """Score of predicting the most frequent label."""
    members: Sequence[Contribution]
    agreements: dict[tuple[str, str], Agreement]
    """Agreement by the ids of two models, in the order of the players."""
    coalitions: int
    """Number of coalitions evaluated."""
    sampling_error: float
    """Largest standard error of a Shapley value from sampling orders; 0 if exact."""
    steps: Sequence[SmallerEnsemble]
    """The best tree found for each number of members, in decreasing size."""

    @property
    def is_exact(self) -> bool:
        """Whether all coalitions were evaluated."""
        return len(self.members) <= EXACT

    def smallest(self, points: float) -> SmallerEnsemble:
        """Return the smallest tree whose overall is at most `points` (hundredths) below that of the whole tree."""
        close = [step for step in self.steps if step.score >= self.whole.value - points / 100 - 1e-9]
        return min(close, key=lambda step: (step.coalition.bit_count(), -step.score))


# Shapley values ------------------------------------------------------------------------------------------------------


def exact_weights(n: int) -> tuple[list[int], np.ndarray]:
    """Return all coalitions of n players, and the weights [n, 2^n] of their values in the Shapley values."""
    masks = np.arange(1 << n)
    sizes = np.array([mask.bit_count() for mask in masks.tolist()])
    share = np.array([1 / (n * math.comb(n - 1, size)) for size in range(n)] or [0.0])
    weights = np.empty((n, 1 << n))
    for i in range(n):
        is_in = masks >> i & 1 == 1
        weights[i] = np.where(is_in, share[sizes - 1], -share[np.minimum(sizes, n - 1)])
    return masks.tolist(), weights


def drawn_orders(n: int, key: str) -> np.ndarray:
    """Draw groups [g, o, n] of orders of n players, seeded by `key`.

    A group is one random order with its rotations, so that each player is equally often at each position, and their
    reverses.
    """
    shifts = np.linspace(0, n, min(n, max(1, COALITIONS // (4 * n))), endpoint=False).astype(np.intp)
    groups = max(2, COALITIONS // (n * len(shifts)))
    words = np.random.PCG64(bootstrap.seed("orders", key)).random_raw(groups * n).reshape(groups, n)
    drawn = words.argsort(axis=1, kind="stable")
    turned = np.stack([np.roll(drawn, shift, axis=1) for shift in shifts], axis=1)
    return np.concatenate([turned, turned[:, :, ::-1]], axis=1)


def joined(orders: np.ndarray) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Return the coalitions along orders [o, n], and the index [o, n] of the one before and after each player joins."""
    places: dict[int, int] = {}
    before, after = np.empty_like(orders), np.empty_like(orders)
    for number, order in enumerate(orders.tolist()):
        mask = 0
        for player in order:
            before[number, player] = places.setdefault(mask, len(places))
            mask |= 1 << player
            after[number, player] = places.setdefault(mask, len(places))
    return list(places), before, after


def mean_weights(before: np.ndarray, after: np.ndarray, coalitions: int) -> np.ndarray:
    """Return the weights [n, C] of the values of coalitions in the mean gain of each player over the orders."""
    weights = np.zeros((before.shape[1], coalitions))
    for player in range(before.shape[1]):
        np.add.at(weights[player], after[:, player], 1 / len(before))
        np.add.at(weights[player], before[:, player], -1 / len(before))
    return weights


# Contributions -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Values:
    """The values [C] of coalitions and their resamples [b, C], by task and overall."""

    coalitions: dict[int, int]
    """Coalition -> index."""
    points: dict[str, np.ndarray]
    resamples: dict[str, np.ndarray]

    def overall(self, coalition: int) -> float:
        """Return the score of one coalition."""
        return float(self.points[OVERALL][self.coalitions[coalition]])

    def unit(self, coalition: int) -> np.ndarray:
        """Return the weights [C] that select the value of one coalition."""
        return np.asarray(np.arange(len(self.coalitions)) == self.coalitions[coalition], np.float64)

    def estimate(self, weights: np.ndarray) -> Estimate:
        """Return a weighted sum [C] of overall scores with its interval."""
        low, high = interval(self.resamples[OVERALL] @ weights)
        return Estimate(float(self.points[OVERALL] @ weights), float(low), float(high))


def points(subsets: EnsembleSubsets, coalitions: Sequence[int]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the values [C] of coalitions by task and overall, and the outcomes [n, C] behind them."""
    outcomes, values = subsets.outcomes(coalitions), {}
    for name, task in subsets.data.tasks.items():
        labels = subsets.labels(name)
        columns = np.moveaxis(outcomes[name], 1, 0)
        values[name] = np.array([leading(task).value(task, column, labels) for column in columns])
    return values | {OVERALL: weighted(values, subsets.data.tasks)}, outcomes


def valued(subsets: EnsembleSubsets, coalitions: Sequence[int]) -> Values:
    """Return the values of coalitions with bootstrap resamples, drawn with the seeds of the tables."""
    values, outcomes = points(subsets, coalitions)
    draws = {}
    for name, task in subsets.data.tasks.items():
        seed, of_all = bootstrap.seed(subsets.root.suite, subsets.split, name), outcomes[name]
        blocks = [resampled(task, leading(task), of_all[:, start : start + CHUNK], subsets.labels(name), seed,
                            RESAMPLES) for start in range(0, len(coalitions), CHUNK)]
        draws[name] = np.concatenate(blocks, axis=1)
    draws[OVERALL] = weighted(draws, subsets.data.tasks)
    return Values({mask: place for place, mask in enumerate(coalitions)}, values, draws)


def contributions(subsets: EnsembleSubsets, must_shrink: bool = False) -> Contributions:
    """Compute the contributions of the members of a tree and, if `must_shrink`, the best smaller trees."""
    seconds = subsets.seconds()
    is_exact = len(subsets.players) <= EXACT
    values, weights, error = _exact(subsets) if is_exact else _sampled(subsets)
    members = [_contribution(subsets, values, weights[i], i, seconds) for i in range(len(subsets.players))]
    whole = values.estimate(values.unit(subsets.whole))
    shrink = _best_of_each_size if is_exact else _eliminated
    steps = shrink(subsets, values) if must_shrink else []
    return Contributions(subsets, whole, values.overall(0), members, agreements(subsets), len(values.coalitions), error,
                         steps)


def _exact(subsets: EnsembleSubsets) -> tuple[Values, np.ndarray, float]:
    """Return the values of all coalitions, the weights [n, C] of the Shapley values, and sampling error 0."""
    coalitions, weights = exact_weights(len(subsets.players))
    return valued(subsets, coalitions), weights, 0.0


def _sampled(subsets: EnsembleSubsets) -> tuple[Values, np.ndarray, float]:
    """Return the same for the coalitions along random orders, with the largest standard error of a Shapley value."""
    n = len(subsets.players)
    orders = drawn_orders(n, subsets.root.id)
    coalitions, before, after = joined(orders.reshape(-1, n))
    alone = [mask for i in range(n) for mask in (1 << i, subsets.whole ^ 1 << i)]
    values = valued(subsets, list(dict.fromkeys([*coalitions, *alone])))
    gains = (values.points[OVERALL][after] - values.points[OVERALL][before]).reshape(orders.shape).mean(axis=1)
    error = float(gains.std(axis=0, ddof=1).max() / math.sqrt(len(gains)))  # [groups, n]
    return values, mean_weights(before, after, len(values.coalitions)), error


def _contribution(subsets: EnsembleSubsets, values: Values, weights: np.ndarray, i: int,
           seconds: Mapping[str, float]) -> Contribution:
    """Compute the contribution of one member."""
    player, rest = subsets.players[i], subsets.whole ^ 1 << i
    left_out = values.estimate(values.unit(subsets.whole) - values.unit(rest))
    by_task = {name: leading(task).sign * float(values.points[name] @ weights)
               for name, task in subsets.data.tasks.items()}
    return Contribution(player, values.overall(1 << i), left_out, values.estimate(weights), by_task,
                        seconds.get(player.id))


# Smaller trees -------------------------------------------------------------------------------------------------------


def _sort_key(subsets: EnsembleSubsets, step: SmallerEnsemble) -> tuple[float, int, int]:
    """Return the sort key of trees of one size: best score first, then fewest repeated players."""
    again = sum(player.number for i, player in enumerate(subsets.players) if step.coalition >> i & 1)
    return -round(step.score, 9), again, step.coalition


def _best_of_each_size(subsets: EnsembleSubsets, values: Values) -> list[SmallerEnsemble]:
    """Return the best tree of each number of members."""
    sizes: dict[int, list[SmallerEnsemble]] = {}
    for mask in values.coalitions:
        sizes.setdefault(mask.bit_count(), []).append(SmallerEnsemble(mask, values.overall(mask)))
    return [min(sizes[size], key=lambda step: _sort_key(subsets, step)) for size in range(len(subsets.players), 0, -1)]


def _eliminated(subsets: EnsembleSubsets, values: Values) -> list[SmallerEnsemble]:
    """Return the trees of backward elimination: leave out, one by one, the member whose loss is least."""
    steps = [SmallerEnsemble(subsets.whole, values.overall(subsets.whole))]
    while (left := steps[-1].coalition).bit_count() > 1:
        masks = [left ^ 1 << i for i in range(len(subsets.players)) if left >> i & 1]
        scores = points(subsets, masks)[0][OVERALL].tolist()
        smaller = [SmallerEnsemble(mask, score) for mask, score in zip(masks, scores, strict=True)]
        steps.append(min(smaller, key=lambda step: _sort_key(subsets, step)))
    return steps
