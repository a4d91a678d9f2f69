"""Metrics, and the scores of predictions by split and task."""

from __future__ import annotations

from collections.abc import Mapping

from ..lazy import deferred
from .data import SPLITS, Data, Task
from .predictions import Predictions

LEAST = 1e-12
"""Lower bound of a probability, so that its logarithm is finite."""


def probabilities(task: Task, scores: np.ndarray) -> np.ndarray:
    """Convert logits [n, k] to class probabilities [n, c]; a binary task has the classes 0 and 1."""
    logits = scores.astype(np.float64)
    logits = logits if task.kind == "classification" else np.hstack([np.zeros_like(logits), logits])
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return shares


def least_squares(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return slope and intercept of the least-squares line from scores [n] to labels [n]."""
    mean = scores.mean()
    x = scores - mean
    slope = float(x @ labels / (x @ x)) if x.any() else 0.0
    return slope, float(labels.mean() - slope * mean)


def logits(task: Task, shares: np.ndarray) -> np.ndarray:
    """Convert class probabilities [n, c] to logits [n, k], the inverse of `probabilities`."""
    logs: np.ndarray = np.log(np.maximum(shares, LEAST))
    return logs if task.kind == "classification" else logs[:, 1:] - logs[:, :1]

with deferred("numpy"):
    import numpy as np

OVERALL = "overall"
"""Key of the mean over a suite's tasks, beside the names of tasks."""

DIGITS = 6
"""Decimals to which scores are rounded when computed, so that published files reproduce a choice by score."""

Scores = dict[str, dict[str, float | None]]
"""Split -> task or `overall` -> metric, or None without predictions or labels. Plain JSON."""


def metric(task: Task, scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the metric of scores [n, k] for labels [n]: accuracy in [0, 1], or Pearson's r for a regression.

    Ties between logits of a classification go to the lower class; a binary logit above 0 predicts 1.
    """
    values = outcomes(task, scores, labels)
    return pearson(values, labels) if task.kind == "regression" else float(values.mean())


def outcomes(task: Task, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the per-example input of the metric, float64 [n]: 1 if correct, else 0; of a regression, the score."""
    predicted = predict_labels(task, scores)
    return np.asarray(predicted if task.kind == "regression" else predicted == labels, np.float64)


def predict_labels(task: Task, scores: np.ndarray) -> np.ndarray:
    """Return the predicted labels [n] of scores [n, k]: class indices, 0 or 1, or the score of a regression."""
    if task.kind == "regression":
        return scores[:, 0]
    return scores.argmax(axis=1) if task.kind == "classification" else (scores[:, 0] > 0).astype(np.int64)


def metrics(task: Task, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the `metric` [M] of each of M systems with scores [M, n, k] for labels [n], to 6 digits."""
    if task.kind == "regression":
        x, y = scores[:, :, 0].astype(np.float64), _standardized(labels)
        x = np.where((x == x[:, :1]).all(axis=1, keepdims=True), 0, x - x.mean(axis=1, keepdims=True))
        lengths = np.sqrt((x * x).sum(axis=1))
        each = np.divide((x * y).sum(axis=1), lengths, out=np.zeros(len(x)), where=lengths > 0)
    else:
        predicted = scores.argmax(axis=2) if task.kind == "classification" else scores[:, :, 0] > 0
        each = (predicted == labels).mean(axis=1)
    rounded: np.ndarray = each.round(DIGITS)
    return rounded


def pearson(left: np.ndarray, right: np.ndarray) -> float:
    """Return Pearson's r in [-1, 1] of two arrays [n]; 0 if one of them is constant."""
    x, y = _standardized(left), _standardized(right)
    return min(1.0, max(-1.0, float((x * y).sum())))


def _standardized(values: np.ndarray) -> np.ndarray:
    """Return values [n] minus their mean, scaled to norm 1; zeros if they are constant."""
    x = values.astype(np.float64)
    if (x == x[0]).all():
        return np.zeros_like(x)  # the mean of equal numbers may have a rounding error
    x -= x.mean()
    x /= np.abs(x).max()  # prevents over- and underflow of squares
    # numpy's own sum: a BLAS product may change its last bits with the number of threads.
    length: np.ndarray = x / np.sqrt((x * x).sum())
    return length


def overall(metrics: Mapping[str, float | None], tasks: Mapping[str, Task]) -> float | None:
    """Return the mean of the tasks' metrics; a correlation r counts as (r + 1) / 2. None if one is missing."""
    values = [metrics.get(name) for name in tasks]
    if not values or None in values:
        return None
    shares = [(m + 1) / 2 if task.kind == "regression" else m
              for m, task in zip(values, tasks.values(), strict=True) if m is not None]
    return sum(shares) / len(shares)


def score_split(predictions: Predictions, data: Data, split: str, whose: str = "") -> dict[str, float | None]:
    """Return the metric of each task on one split, and `overall`, to 6 digits; None without predictions or labels."""
    metrics: dict[str, float | None] = {}
    for name, task in data.tasks.items():
        scores = predictions.find(data, split, name, whose)
        labels = None if scores is None else data.splits[name][split].labels
        metrics[name] = None if scores is None or labels is None else metric(task, scores, labels)
    metrics[OVERALL] = overall(metrics, data.tasks)
    # Adding 0.0 turns -0.0 into 0.0.
    return {name: None if m is None else round(m, DIGITS) + 0.0 for name, m in metrics.items()}


def score(predictions: Predictions, data: Data) -> Scores:
    """Return the scores of every split with predictions and labels of a task."""
    by_split = {split: score_split(predictions, data, split) for split in SPLITS}
    return {split: scores for split, scores in by_split.items() if any(s is not None for s in scores.values())}
