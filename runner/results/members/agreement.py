"""Agreement of pairs of models of a tree: disagreement of their predictions and correlation of their errors."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ...tasks.data import Task
from ...tasks.metrics import OVERALL, pearson, predict_labels
from .subtrees import EnsembleSubsets


@dataclass(frozen=True)
class Agreement:
    """Agreement of two models, per task and as the mean over the tasks (`overall`)."""

    disagreement: dict[str, float]
    """Share of examples with different predictions, of labels in a multi-label task; (1 - r) / 2 for a regression."""
    errors: dict[str, float]
    """Correlation of their errors: indicators of a wrong prediction, or residuals of standardised regression scores."""


def agreements(subsets: EnsembleSubsets) -> dict[tuple[str, str], Agreement]:
    """Return the agreement of each pair of models, by their ids."""
    pairs = {pair: Agreement({}, {}) for pair in combinations(subsets.leaves, 2)}
    for name, task in subsets.data.tasks.items():
        labels = subsets.labels(name)
        scores_of = {id: scores for id, predictions in subsets.leaves.items()
                if (scores := predictions.find(subsets.data, subsets.split, name)) is not None}
        for (first, second), pair in pairs.items():
            if first in scores_of and second in scores_of:
                different, errors = agreement(task, scores_of[first], scores_of[second], labels)
                pair.disagreement[name], pair.errors[name] = different, errors
    for pair in pairs.values():
        for by_task in (pair.disagreement, pair.errors):
            if by_task:
                by_task[OVERALL] = sum(by_task.values()) / len(by_task)
    return pairs


def agreement(task: Task, first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return disagreement and error correlation of two models by their scores [n, k]; constant errors give 0."""
    if task.kind == "regression":
        errors = [_standard(scores[:, 0]) - _standard(labels) for scores in (first, second)]
        return (1 - pearson(first[:, 0], second[:, 0])) / 2, pearson(*errors)
    # Each label of a multi-label task is a decision of its own.
    one, other = (predict_labels(task, scores).reshape(-1) for scores in (first, second))
    return float((one != other).mean()), pearson(*(predicted != labels.reshape(-1) for predicted in (one, other)))


def _standard(values: np.ndarray) -> np.ndarray:
    """Standardise values; zeros if they are constant."""
    centred = values - values.astype(np.float64).mean()
    deviation = centred.std()
    return np.asarray(centred / deviation if deviation > 0 else np.zeros_like(centred))
