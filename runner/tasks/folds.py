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
"""One sha256 gives four 64-bit random numbers per example."""


@dataclass(frozen=True)
class Refit:
    """One cross-fitting split of dev: the rows to refit on (`dev`) and the held-out fold to score (`test`)."""

    data: Data
    """The suite with these rows only: `dev` without the fold, and the fold as `test`."""
    rows: dict[str, dict[str, np.ndarray]]
    """Split -> task -> row numbers in dev."""

    def restricted(self, predictions: Predictions, dev: Data) -> Predictions:
        """Select the rows of both parts from dev predictions."""
        outputs: dict[str, dict[str, Output]] = {}
        for split, by_task in self.rows.items():
            for task, rows in by_task.items():
                scores = predictions.find(dev, "dev", task)
                if scores is not None:
                    outputs.setdefault(split, {})[task] = Output(self.data.splits[task][split].ids, scores[rows])
        return Predictions(outputs)


def refits(data: Data, content: str) -> Iterator[Refit]:
    """Yield all folds of all repeats; tasks without dev labels are left out. `content` is the hash of the suite."""
    positions = {task: _positions(task, examples.ids, content) for task, examples in labelled(data).items()}
    for repeat in range(REPEATS):
        for fold in range(FOLDS):
            rows = {split: {task: np.flatnonzero((position[repeat] % FOLDS == fold) == (split == "test"))
                            for task, position in positions.items()} for split in ("dev", "test")}
            splits = {task: {split: _select(data.splits[task]["dev"], rows[split][task]) for split in rows}
                      for task in positions}
            yield Refit(Data({task: data.tasks[task] for task in positions}, splits), rows)


def labelled(data: Data) -> dict[str, Examples]:
    """Return the dev examples of each task with dev labels."""
    return {task: splits["dev"] for task, splits in data.splits.items()
            if "dev" in splits and splits["dev"].labels is not None}


def _positions(task: str, ids: Sequence[str], content: str) -> np.ndarray:
    """Return each example's position in a pseudo-random permutation per repeat, [REPEATS, n]."""
    digests = b"".join(hashlib.sha256(f"{content} {task} {name}".encode()).digest() for name in ids)
    drawn = np.frombuffer(digests, ">u8").reshape(len(ids), REPEATS)
    return np.asarray(drawn.argsort(axis=0, kind="stable").argsort(axis=0).T)


def _select(examples: Examples, rows: np.ndarray) -> Examples:
    """Return ids and labels of some rows of a split."""
    assert examples.labels is not None
    return Examples(tuple(examples.ids[row] for row in rows), (), (), examples.labels[rows])
