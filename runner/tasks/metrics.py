"""Metrics and scores: how the Predictions of a node are judged."""

from __future__ import annotations

from collections.abc import Mapping

from ..lazy import deferred
from .data import SPLITS, Data, Task
from .predictions import Predictions

LEAST = 1e-12
"""Least probability of a class, so that its logarithm is finite."""


def probabilities(task: Task, scores: np.ndarray) -> np.ndarray:
    """Return the probability of each class [n, c] by scores [n, k]; a binary task has the classes 0 and 1."""
    logits = scores.astype(np.float64)
    logits = logits if task.kind == "classification" else np.hstack([np.zeros_like(logits), logits])
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return shares


def least_squares(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return slope and level of the line from scores [n] to labels [n] with the least squared error."""
    mean = scores.mean()
    x = scores - mean
    slope = float(x @ labels / (x @ x)) if x.any() else 0.0
    return slope, float(labels.mean() - slope * mean)


def logits(task: Task, shares: np.ndarray) -> np.ndarray:
    """Return the scores [n, k] whose `probabilities` are shares [n, c]."""
    logs: np.ndarray = np.log(np.maximum(shares, LEAST))
    return logs if task.kind == "classification" else logs[:, 1:] - logs[:, :1]

with deferred("numpy"):
    import numpy as np

OVERALL = "overall"
"""The column of the mean over a suite's tasks, next to those named by tasks."""

DIGITS = 6
"""Scores are rounded when they are made, so that a choice by score can be followed from the published file."""

Scores = dict[str, dict[str, float | None]]
"""Split -> task or `overall` -> metric, None where it cannot be had. Plain JSON already."""


def metric(task: Task, scores: np.ndarray, labels: np.ndarray) -> float:
    """Return how well scores [n, k] fit labels [n]: accuracy in [0, 1], or Pearson's r of a regression.

    Equal logits of a classification go to the lower class; a binary logit says yes above 0.
    """
    found = outcomes(task, scores, labels)
    return pearson(found, labels) if task.kind == "regression" else float(found.mean())


def outcomes(task: Task, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return what a metric is made of, one number an example [n]: 1 where the label is met, or a regression's score."""
    said = decided(task, scores)
    return np.asarray(said if task.kind == "regression" else said == labels, np.float64)


def decided(task: Task, scores: np.ndarray) -> np.ndarray:
    """Return what scores [n, k] say [n]: class numbers, 0 or 1, or the score of a regression itself."""
    if task.kind == "regression":
        return scores[:, 0]
    return scores.argmax(axis=1) if task.kind == "classification" else (scores[:, 0] > 0).astype(np.int64)


def metrics(task: Task, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the `metric` [M] of each of M nodes' scores [M, n, k] for labels [n], to 6 digits."""
    if task.kind == "regression":
        x, y = scores[:, :, 0].astype(np.float64), _direction(labels)
        x = np.where((x == x[:, :1]).all(axis=1, keepdims=True), 0, x - x.mean(axis=1, keepdims=True))
        lengths = np.sqrt((x * x).sum(axis=1))
        each = np.divide((x * y).sum(axis=1), lengths, out=np.zeros(len(x)), where=lengths > 0)
    else:
        said = scores.argmax(axis=2) if task.kind == "classification" else scores[:, :, 0] > 0
        each = (said == labels).mean(axis=1)
    rounded: np.ndarray = each.round(DIGITS)
    return rounded


def pearson(left: np.ndarray, right: np.ndarray) -> float:
    """Return the correlation r of [n] and [n] in [-1, 1]; 0 where one of them is constant, as it then says nothing."""
    x, y = _direction(left), _direction(right)
    return min(1.0, max(-1.0, float((x * y).sum())))


def _direction(values: np.ndarray) -> np.ndarray:
    """Return values [n] less their mean, brought to length 1; zeros where they are constant."""
    x = values.astype(np.float64)
    if (x == x[0]).all():
        return np.zeros_like(x)  # the mean of equal numbers may be off by a rounding
    x -= x.mean()
    x /= np.abs(x).max()  # so that no square over- or underflows
    # numpy's own sum: a BLAS product may change its last bits with the number of threads.
    length: np.ndarray = x / np.sqrt((x * x).sum())
    return length


def overall(metrics: Mapping[str, float | None], tasks: Mapping[str, Task]) -> float | None:
    """Return the mean of the tasks' metrics, a correlation r counted as (r + 1) / 2; None where one is missing."""
    found = [metrics.get(name) for name in tasks]
    if not found or None in found:
        return None
    shares = [(m + 1) / 2 if task.kind == "regression" else m
              for m, task in zip(found, tasks.values(), strict=True) if m is not None]
    return sum(shares) / len(shares)


def score_split(predictions: Predictions, data: Data, split: str, whose: str = "") -> dict[str, float | None]:
    """Return each task's metric on one split and the overall, to 6 digits; None without predictions or labels."""
    metrics: dict[str, float | None] = {}
    for name, task in data.tasks.items():
        scores = predictions.find(data, split, name, whose)
        labels = None if scores is None else data.splits[name][split].labels
        metrics[name] = None if scores is None or labels is None else metric(task, scores, labels)
    metrics[OVERALL] = overall(metrics, data.tasks)
    # Adding 0.0 turns -0.0 into 0.0.
    return {name: None if m is None else round(m, DIGITS) + 0.0 for name, m in metrics.items()}


def score(predictions: Predictions, data: Data) -> Scores:
    """Return the scores of every split of which the node predicts something that has labels."""
    by_split = {split: score_split(predictions, data, split) for split in SPLITS}
    return {split: scores for split, scores in by_split.items() if any(s is not None for s in scores.values())}
