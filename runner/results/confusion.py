"""Confusion matrix and worst mistakes of a node on one split of a task."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..tasks.data import Examples, Task
from ..tasks.metrics import least_squares, probabilities

ANSWERS = ("found", "missed", "wrongly given", "rightly not given")
"""What becomes of one label of a multi-label task."""

GRADES = 6
"""Number of equally spaced bins of a regression; for a range from 0 to 5 these are the whole numbers."""


@dataclass(frozen=True)
class Confusion:
    """Confusion matrix: number of examples by label (row) and predicted class (column).

    A multi-label task has a row for each label, and columns for what became of it.
    """

    names: tuple[str, ...]
    """Labels."""
    counts: np.ndarray
    """int [k, columns]"""
    columns: tuple[str, ...]
    """Predicted classes; ANSWERS for a multi-label task."""


@dataclass(frozen=True)
class Mistake:
    """An example that was predicted wrongly."""

    id: str
    sentences: tuple[str, ...]
    label: str
    predicted: str
    size: float
    """Size of the error: probability of the predicted class less that of the label; for a regression, the absolute
    error in units of the label; for a multi-label task, the largest error of a label's probability."""


def confusion(task: Task, scores: np.ndarray, labels: np.ndarray) -> Confusion:
    """Return the confusion matrix of scores [n, k] and labels [n]; those of a regression are binned."""
    if task.kind == "multilabel":
        is_said, is_true = scores > 0, labels == 1
        kinds = (is_said & is_true, is_true & ~is_said, is_said & ~is_true, ~is_said & ~is_true)
        return Confusion(task.names, np.stack([kind.sum(axis=0) for kind in kinds], axis=1), ANSWERS)
    if task.kind == "regression":
        grades = np.linspace(task.low, task.high, GRADES)
        names = tuple(f"{grade:.3g}" for grade in grades)
        edges = (grades[1:] + grades[:-1]) / 2
        rows, columns = (np.digitize(values, edges) for values in (labels, calibrated(scores, labels)))
    else:
        names = task.names
        rows, columns = labels.astype(int), probabilities(task, scores).argmax(axis=1)
    counts = np.zeros((len(names), len(names)), int)
    np.add.at(counts, (rows, columns), 1)
    return Confusion(names, counts, names)


def calibrated(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Map scores [n, 1] to the scale of labels [n] by least squares, which leaves Pearson r unchanged."""
    x = scores[:, 0].astype(np.float64)
    slope, level = least_squares(x, labels)
    line: np.ndarray = slope * x + level
    return line


def worst(task: Task, scores: np.ndarray, examples: Examples, count: int) -> Iterator[Mistake]:
    """Yield at most `count` mistakes of the largest errors; equal ones in the order of the file."""
    labels = examples.labels
    assert labels is not None
    if task.kind == "regression":
        predicted = calibrated(scores, labels)
        sizes, texts = np.abs(predicted - labels), [f"{value:.2f}" for value in predicted]
        names = [f"{label:g}" for label in labels]
    elif task.kind == "multilabel":
        sizes = np.abs(probabilities(task, scores) - labels).max(axis=1)
        sizes = np.where(((scores > 0) == labels).all(axis=1), 0.0, sizes)
        texts, names = ([", ".join(name for name, answer in zip(task.names, row, strict=True) if answer) or "none"
                         for row in rows] for rows in (scores > 0, labels == 1))
    else:
        shares, rows = probabilities(task, scores), np.arange(len(labels))
        best, true = shares.argmax(axis=1), labels.astype(int)
        sizes = shares[rows, best] - shares[rows, true]
        texts, names = [task.names[i] for i in best], [task.names[i] for i in true]
    for row in np.argsort(-sizes, kind="stable")[:count].tolist():
        if sizes[row] > 0:
            pair = tuple(column[row] for column in (examples.first, examples.second) if column)
            yield Mistake(examples.ids[row], pair, names[row], texts[row], float(sizes[row]))
