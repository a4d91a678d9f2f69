"""Mistakes: where a node's scores of one split of a task part from the labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..tasks.data import Examples, Task
from ..tasks.metrics import least_squares, probabilities

GRADES = 6
"""To how many equally spaced values a regression is rounded; of a range from 0 to 5 these are the whole numbers."""


@dataclass(frozen=True)
class Confusion:
    """How often each label (row) was answered by each class (column)."""

    names: tuple[str, ...]
    counts: np.ndarray
    """int [k, k]"""


@dataclass(frozen=True)
class Mistake:
    """An example that was judged wrongly."""

    id: str
    sentences: tuple[str, ...]
    label: str
    said: str
    size: float
    """How far off: of classes the share given to the one that was said less that of the label; of a regression, the
    distance in units of the label."""


def confusion(task: Task, scores: np.ndarray, labels: np.ndarray) -> Confusion:
    """Return the confusion of scores [n, k] and labels [n]; of a regression, rounded."""
    if task.kind == "regression":
        grades = np.linspace(task.low, task.high, GRADES)
        names = tuple(f"{grade:.3g}" for grade in grades)
        edges = (grades[1:] + grades[:-1]) / 2
        rows, columns = (np.digitize(values, edges) for values in (labels, calibrated(scores, labels)))
    else:
        names = ("no", "yes") if task.kind == "binary" else tuple(map(str, range(task.classes)))
        rows, columns = labels.astype(int), probabilities(task, scores).argmax(axis=1)
    counts = np.zeros((len(names), len(names)), int)
    np.add.at(counts, (rows, columns), 1)
    return Confusion(names, counts)


def calibrated(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return scores [n, 1] brought to the scale of labels [n] by the line of least squares, which leaves r as it is."""
    x = scores[:, 0].astype(np.float64)
    slope, level = least_squares(x, labels)
    line: np.ndarray = slope * x + level
    return line


def worst(task: Task, scores: np.ndarray, examples: Examples, count: int) -> Iterator[Mistake]:
    """Yield the mistakes that are furthest off, at most `count`; of equal ones the earlier in the file come first."""
    labels = examples.labels
    assert labels is not None
    if task.kind == "regression":
        said = calibrated(scores, labels)
        sizes, texts = np.abs(said - labels), [f"{value:.2f}" for value in said]
        names = [f"{label:g}" for label in labels]
    else:
        given, rows = probabilities(task, scores), np.arange(len(labels))
        best, true = given.argmax(axis=1), labels.astype(int)
        sizes = given[rows, best] - given[rows, true]
        classes = ("no", "yes") if task.kind == "binary" else tuple(map(str, range(task.classes)))
        texts, names = [classes[i] for i in best], [classes[i] for i in true]
    for row in np.argsort(-sizes, kind="stable")[:count].tolist():
        if sizes[row] > 0:
            pair = tuple(column[row] for column in (examples.first, examples.second) if column)
            yield Mistake(examples.ids[row], pair, names[row], texts[row], float(sizes[row]))
