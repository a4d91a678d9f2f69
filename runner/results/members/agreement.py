"""Likeness: how often two models of a tree say different things, and whether they are wrong together."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ...tasks.data import Task
from ...tasks.metrics import OVERALL, pearson
from .subtrees import EnsembleSubsets


@dataclass(frozen=True)
class Agreement:
    """How alike two models are, per task and in the mean over the tasks (`overall`)."""

    disagreement: dict[str, float]
    """Share of the examples on which they say different things; (1 - r) / 2 of a regression."""
    errors: dict[str, float]
    """Correlation of their errors: of being wrong, or of what is left of a regression's standardised scores."""


def agreements(subsets: EnsembleSubsets) -> dict[tuple[str, str], Agreement]:
    """Return how alike each two models are."""
    by_pair = {pair: Agreement({}, {}) for pair in combinations(subsets.leaves, 2)}
    for name, task in subsets.data.tasks.items():
        labels = subsets.labels(name)
        told = {id: scores for id, said in subsets.leaves.items()
                if (scores := said.find(subsets.data, subsets.split, name)) is not None}
        for (one, other), pair in by_pair.items():
            if one in told and other in told:
                different, errors = alike(task, told[one], told[other], labels)
                pair.disagreement[name], pair.errors[name] = different, errors
    for pair in by_pair.values():
        for by_task in (pair.disagreement, pair.errors):
            if by_task:
                by_task[OVERALL] = sum(by_task.values()) / len(by_task)
    return by_pair


def alike(task: Task, one: np.ndarray, other: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return disagreement and correlation of errors of scores [n, k] and [n, k]; a constant correlates with nothing."""
    if task.kind == "regression":
        errors = [_standard(scores[:, 0]) - _standard(labels) for scores in (one, other)]
        return (1 - pearson(one[:, 0], other[:, 0])) / 2, pearson(*errors)
    said = [scores.argmax(axis=1) if task.kind == "classification" else scores[:, 0] > 0 for scores in (one, other)]
    return float((said[0] != said[1]).mean()), pearson(*(answers != labels for answers in said))


def _standard(values: np.ndarray) -> np.ndarray:
    """Return values less their mean, in standard deviations; zeros where they are constant."""
    centred = values - values.astype(np.float64).mean()
    deviation = centred.std()
    return np.asarray(centred / deviation if deviation > 0 else np.zeros_like(centred))
