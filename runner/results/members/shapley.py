"""What each member of an ensemble is worth, and what a smaller ensemble would lose.

The value of a coalition is its score; of nothing at all, that of always saying the most frequent label. The Shapley
value (Shapley 1953) is a member's mean gain over all orders in which the members can join: with up to 12 members it is
taken over all coalitions, beyond over random orders (Castro et al. 2009), each with its rotations and their reverses.
It is linear in the values, so that its interval comes from the coalitions' resamples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...tasks import bootstrap
from ...tasks.bootstrap import interval, resampled
from ...tasks.metrics import OVERALL, pearson
from .agreement import Agreement, agreements
from .subtrees import EnsembleSubsets, Player

EXACT = 12
"""Most members for which all coalitions are looked at."""

COALITIONS = 1 << EXACT
"""About how many coalitions are looked at beyond."""

RESAMPLES = 1000

CHUNK = 1024
"""Coalitions that are resampled at a time."""


@dataclass(frozen=True)
class Estimate:
    """A number and both ends of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Contribution:
    """What one member is worth, in the unit of scores."""

    player: Player
    alone: float
    left_out: Estimate
    """What the whole loses without it."""
    shapley: Estimate
    by_task: dict[str, float]
    """Shapley values in each task's own metric."""
    inference: float | None
    """Seconds to predict 1,000 sentences, where that was measured."""


@dataclass(frozen=True)
class SmallerEnsemble:
    """A smaller tree, and its score."""

    coalition: int
    score: float


@dataclass(frozen=True)
class Contributions:
    """Everything about one tree's members."""

    subsets: EnsembleSubsets
    whole: Estimate
    nothing: float
    """Score of always saying the most frequent label."""
    members: Sequence[Contribution]
    agreements: dict[tuple[str, str], Agreement]
    """By the ids of two models, in the order of the players."""
    coalitions: int
    """How many were looked at."""
    sampling_error: float
    """Largest standard error that a Shapley value has from the orders; 0 where it is exact."""
    steps: Sequence[SmallerEnsemble]
    """The best tree found of each number of members, from the whole downwards."""

    @property
    def is_exact(self) -> bool:
        """Whether all coalitions were looked at."""
        return len(self.members) <= EXACT

    def smallest(self, points: float) -> SmallerEnsemble:
        """Return the smallest tree found whose overall is at most so many points (hundredths) below the whole's."""
        close = [step for step in self.steps if step.score >= self.whole.value - points / 100 - 1e-9]
        return min(close, key=lambda step: (step.coalition.bit_count(), -step.score))


# Shapley values ------------------------------------------------------------------------------------------------------


def exact_weights(n: int) -> tuple[list[int], np.ndarray]:
    """Return all coalitions of n players, and the weights [n, 2^n] of their values in each player's Shapley value."""
    masks = np.arange(1 << n)
    sizes = np.array([mask.bit_count() for mask in masks.tolist()])
    share = np.array([1 / (n * math.comb(n - 1, size)) for size in range(n)] or [0.0])
    weights = np.empty((n, 1 << n))
    for i in range(n):
        is_in = masks >> i & 1 == 1
        weights[i] = np.where(is_in, share[sizes - 1], -share[np.minimum(sizes, n - 1)])
    return masks.tolist(), weights


def drawn_orders(n: int, key: str) -> np.ndarray:
    """Return groups [g, o, n] of orders of n players; `key` decides them.

    A group is one random order, its rotations, so that each player is as often at each place, and their reverses.
    """
    shifts = np.linspace(0, n, min(n, max(1, COALITIONS // (4 * n))), endpoint=False).astype(np.intp)
    groups = max(2, COALITIONS // (n * len(shifts)))
    words = np.random.PCG64(bootstrap.seed("orders", key)).random_raw(groups * n).reshape(groups, n)
    drawn = words.argsort(axis=1, kind="stable")
    turned = np.stack([np.roll(drawn, shift, axis=1) for shift in shifts], axis=1)
    return np.concatenate([turned, turned[:, :, ::-1]], axis=1)


def joined(orders: np.ndarray) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Return the coalitions on the way of orders [o, n], and which [o, n] each player finds and leaves behind."""
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
    """Return the weights [n, C] of the coalitions' values in each player's mean gain over the orders."""
    weights = np.zeros((before.shape[1], coalitions))
    for player in range(before.shape[1]):
        np.add.at(weights[player], after[:, player], 1 / len(before))
        np.add.at(weights[player], before[:, player], -1 / len(before))
    return weights


# Appraisal -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Values:
    """The values [C] of coalitions and their resamples [b, C], by task and overall."""

    coalitions: dict[int, int]
    """Coalition -> its place."""
    points: dict[str, np.ndarray]
    resamples: dict[str, np.ndarray]

    def overall(self, coalition: int) -> float:
        """Return the score of one coalition."""
        return float(self.points[OVERALL][self.coalitions[coalition]])

    def unit(self, coalition: int) -> np.ndarray:
        """Return the weights [C] of one coalition's value."""
        return np.asarray(np.arange(len(self.coalitions)) == self.coalitions[coalition], np.float64)

    def estimate(self, weights: np.ndarray) -> Estimate:
        """Return a weighted sum [C] of overall scores with its interval."""
        low, high = interval(self.resamples[OVERALL] @ weights)
        return Estimate(float(self.points[OVERALL] @ weights), float(low), float(high))


def points(subsets: EnsembleSubsets, coalitions: Sequence[int]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the values [C] of coalitions by task and overall, and the outcomes [n, C] that they are made of."""
    outcomes, values = subsets.outcomes(coalitions), {}
    for name, task in subsets.data.tasks.items():
        labels = subsets.labels(name)
        values[name] = np.array([pearson(column, labels) for column in outcomes[name].T]) \
            if task.kind == "regression" else outcomes[name].mean(axis=0)
    return values | {OVERALL: bootstrap.overall(values, subsets.data.tasks)}, outcomes


def valued(subsets: EnsembleSubsets, coalitions: Sequence[int]) -> Values:
    """Return the values of coalitions with their resamples, drawn as for a table."""
    values, found = points(subsets, coalitions)
    draws = {}
    for name, task in subsets.data.tasks.items():
        seed = bootstrap.seed(subsets.root.suite, subsets.split, name)
        blocks = [resampled(task, found[name][:, at : at + CHUNK], subsets.labels(name), seed, RESAMPLES)
                  for at in range(0, len(coalitions), CHUNK)]
        draws[name] = np.concatenate(blocks, axis=1)
    draws[OVERALL] = bootstrap.overall(draws, subsets.data.tasks)
    return Values({mask: place for place, mask in enumerate(coalitions)}, values, draws)


def contributions(subsets: EnsembleSubsets, must_shrink: bool = False) -> Contributions:
    """Return what the members of a tree are worth, and the smaller trees where told."""
    seconds = subsets.seconds()
    is_exact = len(subsets.players) <= EXACT
    values, weights, error = _all(subsets) if is_exact else _sampled(subsets)
    members = [_contribution(subsets, values, weights[i], i, seconds) for i in range(len(subsets.players))]
    whole = values.estimate(values.unit(subsets.whole))
    shrink = _best_of_each_size if is_exact else _eliminated
    steps = shrink(subsets, values) if must_shrink else []
    return Contributions(subsets, whole, values.overall(0), members, agreements(subsets), len(values.coalitions), error,
                         steps)


def _all(subsets: EnsembleSubsets) -> tuple[Values, np.ndarray, float]:
    """Return the values of all coalitions, the weights [n, C] of Shapley values, and that nothing was sampled."""
    coalitions, weights = exact_weights(len(subsets.players))
    return valued(subsets, coalitions), weights, 0.0


def _sampled(subsets: EnsembleSubsets) -> tuple[Values, np.ndarray, float]:
    """Return the same of the coalitions on the way of random orders, and the largest standard error of a value."""
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
    """Return what one member is worth."""
    player, rest = subsets.players[i], subsets.whole ^ 1 << i
    left_out = values.estimate(values.unit(subsets.whole) - values.unit(rest))
    by_task = {name: float(values.points[name] @ weights) for name in subsets.data.tasks}
    return Contribution(player, values.overall(1 << i), left_out, values.estimate(weights), by_task,
                        seconds.get(player.id))


# Smaller trees -------------------------------------------------------------------------------------------------------


def _goodness(subsets: EnsembleSubsets, step: SmallerEnsemble) -> tuple[float, int, int]:
    """Return what trees of one size are sorted by: score, and of equals the one without what is there again."""
    again = sum(player.number for i, player in enumerate(subsets.players) if step.coalition >> i & 1)
    return -round(step.score, 9), again, step.coalition


def _best_of_each_size(subsets: EnsembleSubsets, values: Values) -> list[SmallerEnsemble]:
    """Return the best of all trees of each number of members."""
    sizes: dict[int, list[SmallerEnsemble]] = {}
    for mask in values.coalitions:
        sizes.setdefault(mask.bit_count(), []).append(SmallerEnsemble(mask, values.overall(mask)))
    return [min(sizes[size], key=lambda step: _goodness(subsets, step)) for size in range(len(subsets.players), 0, -1)]


def _eliminated(subsets: EnsembleSubsets, values: Values) -> list[SmallerEnsemble]:
    """Return the trees that come of leaving out, one after another, the member whose loss is least."""
    steps = [SmallerEnsemble(subsets.whole, values.overall(subsets.whole))]
    while (left := steps[-1].coalition).bit_count() > 1:
        masks = [left ^ 1 << i for i in range(len(subsets.players)) if left >> i & 1]
        found = points(subsets, masks)[0][OVERALL].tolist()
        smaller = [SmallerEnsemble(mask, score) for mask, score in zip(masks, found, strict=True)]
        steps.append(min(smaller, key=lambda step: _goodness(subsets, step)))
    return steps
