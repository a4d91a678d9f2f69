"""Scores of predictions: the metrics of each task by split and column, and the overall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..lazy import deferred
from .data import SPLITS, Data, Kind, Task
from .metric_types import METRICS, USUAL, Metric, Number, standardized
from .metric_types import pearson as pearson
from .metric_types import predict_labels as predict_labels
from .metric_types import probabilities as probabilities
from .predictions import Predictions

with deferred("numpy"):
    import numpy as np

LEAST = 1e-12
"""Lower bound of a probability, so that its logarithm is finite."""

OVERALL = "overall"
"""Key of the mean over a suite's tasks, beside the names of tasks."""

DIGITS = 6
"""Decimals to which scores are rounded when computed, so that published files reproduce a choice by score."""

Scores = dict[str, dict[str, float | None]]
"""Split -> column -> score, or None without predictions or labels. Plain JSON."""


class Measure(NamedTuple):
    """A column of scores: one metric of one task."""

    name: str
    """Name of the task."""
    task: Task
    metric: Metric


def columns(task: str, kind: Kind, names: Sequence[str]) -> dict[str, Metric]:
    """Return the columns of a task by its name: its leading metric under that name, others as `task.metric`."""
    first, *others = names or (USUAL[kind],)
    return {task: METRICS[first], **{f"{task}.{name}": METRICS[name] for name in others}}


def measures(tasks: Mapping[str, Task]) -> dict[str, Measure]:
    """Return the columns of all tasks."""
    return {column: Measure(name, task, metric) for name, task in tasks.items()
            for column, metric in columns(name, task.kind, task.metrics).items()}


def leading(task: Task) -> Metric:
    """Return the metric of a task that is its column, by which is chosen, and which counts in the overall."""
    return METRICS[(task.metrics or (USUAL[task.kind],))[0]]


def metric(task: Task, scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the leading metric of scores [n, k] for labels [n]."""
    return measured(leading(task), task, scores, labels)


def measured(metric: Metric, task: Task, scores: np.ndarray, labels: np.ndarray) -> float:
    """Return a metric of scores [n, k] for labels [n]."""
    return metric.value(task, metric.outcomes(task, scores, labels), labels)


def metrics(task: Task, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the leading metric [M] of each of M systems with scores [M, n, k] for labels [n], to 6 digits."""
    return values(leading(task), task, scores, labels)


def values(metric: Metric, task: Task, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return a metric [M] of each of M systems with scores [M, n, k] for labels [n], to 6 digits."""
    if metric is METRICS["pearson"]:
        x, y = scores[:, :, 0].astype(np.float64), standardized(labels)
        x = np.where((x == x[:, :1]).all(axis=1, keepdims=True), 0, x - x.mean(axis=1, keepdims=True))
        lengths = np.sqrt((x * x).sum(axis=1))
        each = np.divide((x * y).sum(axis=1), lengths, out=np.zeros(len(x)), where=lengths > 0)
    elif metric is METRICS["accuracy"] and task.kind != "multilabel":
        predicted = scores.argmax(axis=2) if task.kind == "classification" else scores[:, :, 0] > 0
        each = (predicted == labels).mean(axis=1)
    else:
        each = np.array([measured(metric, task, array, labels) for array in scores])
    rounded: np.ndarray = each.round(DIGITS)
    return rounded


def least_squares(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return slope and intercept of the least-squares line from scores [n] to labels [n]."""
    mean = scores.mean()
    x = scores - mean
    slope = float(x @ labels / (x @ x)) if x.any() else 0.0
    return slope, float(labels.mean() - slope * mean)


def logits(task: Task, shares: np.ndarray) -> np.ndarray:
    """Convert class probabilities [n, c] to logits [n, k], the inverse of `probabilities`."""
    logs: np.ndarray = np.log(np.maximum(shares, LEAST))
    if task.kind == "multilabel":
        logs -= np.log(np.maximum(1 - shares, LEAST))
    return logs if task.kind in ("classification", "multilabel") else logs[:, 1:] - logs[:, :1]


def overall(metrics: Mapping[str, float | None], tasks: Mapping[str, Task]) -> float | None:
    """Return the mean of the tasks' leading metrics, weighted by what the tasks count. None if one is missing.

    What a metric contributes is its `share`: a correlation r counts as (r + 1) / 2. If no task counts, all do.
    """
    known = {name: value for name in counted(tasks) if (value := metrics.get(name)) is not None}
    return weighted(known, tasks) if known and known.keys() == counted(tasks).keys() else None


def counted(tasks: Mapping[str, Task]) -> Mapping[str, Task]:
    """Return the tasks that count in the overall: all, if none does."""
    return {name: task for name, task in tasks.items() if task.counts} or tasks


def weighted(metrics: Mapping[str, Number], tasks: Mapping[str, Task]) -> Number:
    """Return the overall of the leading metrics by task, numbers or arrays of any one shape."""
    weights = {name: task.counts or 1.0 for name, task in counted(tasks).items()}
    shares = [weight * leading(tasks[name]).share(tasks[name], metrics[name]) for name, weight in weights.items()]
    total: Number = sum(shares[1:], shares[0]) / sum(weights.values())
    return total


def score_split(predictions: Predictions, data: Data, split: str, whose: str = "") -> dict[str, float | None]:
    """Return the metrics of each task on one split, and `overall`, to 6 digits; None without predictions or labels."""
    found: dict[str, float | None] = {}
    for column, (name, task, of_column) in measures(data.tasks).items():
        scores = predictions.find(data, split, name, whose)
        labels = None if scores is None else data.splits[name][split].labels
        found[column] = None if scores is None or labels is None else measured(of_column, task, scores, labels)
    found[OVERALL] = overall(found, data.tasks)
    # Adding 0.0 turns -0.0 into 0.0.
    return {name: None if m is None else round(m, DIGITS) + 0.0 for name, m in found.items()}


def score(predictions: Predictions, data: Data) -> Scores:
    """Return the scores of every split with predictions and labels of a task."""
    by_split = {split: score_split(predictions, data, split) for split in SPLITS}
    return {split: scores for split, scores in by_split.items() if any(s is not None for s in scores.values())}
