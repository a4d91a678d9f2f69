"""Folds of the dev split for cross-fitting."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..lazy import deferred
from .data import Data, Examples
from .predictions import Output, Predictions

with deferred("numpy"):
    import numpy as np

FOLDS = 5

REPEATS = 4
"""As many as one sha256 of an id gives independent numbers of 64 bits."""


@dataclass(frozen=True)
class Refit:
    """Dev without one fold, and the fold: the rows that choices are made on again, and those that are scored."""

    data: Data
    """The suite with only these rows: `dev` is what is left of dev, `test` is the fold."""
    rows: dict[str, dict[str, np.ndarray]]
    """Split -> task -> the rows of dev."""

    def restricted(self, predictions: Predictions, dev: Data) -> Predictions:
        """Return what Predictions of dev say of the rows that are left and of the fold."""
        outputs: dict[str, dict[str, Output]] = {}
        for split, by_task in self.rows.items():
            for task, rows in by_task.items():
                scores = predictions.find(dev, "dev", task)
                if scores is not None:
                    outputs.setdefault(split, {})[task] = Output(self.data.splits[task][split].ids, scores[rows])
        return Predictions(outputs)


def refits(data: Data, content: str) -> Iterator[Refit]:
    """Yield all folds of all repeats; tasks without dev labels are left out. `content` is the suite's hash."""
    places = {task: _places(task, examples.ids, content) for task, examples in labelled(data).items()}
    for repeat in range(REPEATS):
        for fold in range(FOLDS):
            rows = {split: {task: np.flatnonzero((place[repeat] % FOLDS == fold) == (split == "test"))
                            for task, place in places.items()} for split in ("dev", "test")}
            splits = {task: {split: _some(data.splits[task]["dev"], rows[split][task]) for split in rows}
                      for task in places}
            yield Refit(Data({task: data.tasks[task] for task in places}, splits), rows)


def labelled(data: Data) -> dict[str, Examples]:
    """Return dev of each task that has labels there."""
    return {task: splits["dev"] for task, splits in data.splits.items()
            if "dev" in splits and splits["dev"].labels is not None}


def _places(task: str, ids: Sequence[str], content: str) -> np.ndarray:
    """Return the place of each example in an order of its own for each repeat [REPEATS, n]."""
    digests = b"".join(hashlib.sha256(f"{content} {task} {name}".encode()).digest() for name in ids)
    drawn = np.frombuffer(digests, ">u8").reshape(len(ids), REPEATS)
    return np.asarray(drawn.argsort(axis=0, kind="stable").argsort(axis=0).T)


def _some(examples: Examples, rows: np.ndarray) -> Examples:
    """Return some rows of a split: ids and labels."""
    assert examples.labels is not None
    return Examples(tuple(examples.ids[row] for row in rows), (), (), examples.labels[rows])
