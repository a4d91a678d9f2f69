"""What tests of parts share."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from members import TASKS

from runner.tasks.data import Data, Examples
from runner.tasks.predictions import Output, Predictions

N = 80


def made_data(seed: int = 0, n: int = N) -> Data:
    rng = np.random.default_rng(seed)
    splits = {task: {split: Examples(tuple(f"{split}{i}" for i in range(n)), ("",) * n,
                                     labels=rng.integers(0, high, n).astype(float)) for split in ("dev", "test")}
              for task, high in (("sentiment", 5), ("paraphrase", 2), ("similarity", 6))}
    return Data(TASKS, splits)


DATA = made_data()


def skilled(seed: int, skill: float = 1.0, data: Data = DATA, tasks: Sequence[str] = tuple(TASKS)) -> Predictions:
    """Return predictions that know something of the labels."""
    rng, outputs = np.random.default_rng(seed), {}
    for split, task in itertools.product(("dev", "test"), tasks):
        examples, width = data.splits[task][split], TASKS[task].outputs
        labels = examples.labels.astype(int)
        signal = np.eye(5)[labels] if width == 5 else (labels - labels.mean())[:, None]
        scores = rng.normal(rng.normal(), 1 + rng.random(), (len(labels), width)) + skill * 2 * signal
        outputs.setdefault(split, {})[task] = Output(examples.ids, scores.astype(np.float32))
    return Predictions(outputs)
