"""Greedy ensemble selection on dev."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from ...part import Member
from ...tasks.data import Data, Task
from ...tasks.metrics import leading, metrics, probabilities
from ...tasks.predictions import Predictions
from . import Choice, Ensemble, by_task, on_dev
from ._scales import mean, scaled, unscaled


class Greedy(Ensemble):
    """Ensemble selection from libraries of models (Caruana et al. 2004 section 2, 2006), separately for each task.

    Starts with the best members, repeatedly adds (with replacement) the member that gives the best metric of the mean,
    and keeps the best ensemble on the way; the weights from several random bags of members are averaged.
    """

    type = "greedy"
    ordered = False

    members: tuple[Member, ...] = Field(min_length=1)
    """Models and ensembles to choose from; duplicates are merged. For a task, those that predict it."""
    rounds: int = Field(default=20, ge=1)
    """Maximum size of the ensemble of one bag; members chosen repeatedly count repeatedly."""
    start: int = Field(default=3, ge=1)
    """Maximum number of best members to start with; the number whose mean has the best metric is used."""
    bags: int = Field(default=10, ge=1)
    """Number of random bags of members; with `fraction` 1 all bags are equal and one is used."""
    fraction: float = Field(default=0.5, gt=0, le=1)
    """Share of the members in a bag."""
    on: Literal["logits", "probabilities"] = "logits"
    """What is averaged."""

    def fit(self, members: Sequence[Predictions], data: Data, ids: Sequence[str]) -> Choice:
        """Return the weights by task and id: a member's share of the ensemble, averaged over bags."""
        return {task: self._weights(data.tasks[task], scores, labels) for task, scores, labels in
                on_dev(members, data, ids)}

    def chosen(self, choice: Choice, ids: Sequence[str]) -> list[int]:
        """Return the positions of the members chosen for any task, by descending total weight."""
        total = {name: sum(weights.get(name, 0.0) for weights in choice.values()) for name in ids}
        return [ids.index(name) for name in sorted(total, key=lambda name: (-total[name], name)) if total[name]]

    def apply(self, choice: Choice, members: Sequence[Predictions], data: Data, ids: Sequence[str]) -> Predictions:
        """Return the weighted mean of the chosen members."""
        def rule(task: str, scores: dict[int, np.ndarray]) -> np.ndarray:
            meaning, weights = data.tasks[task], [choice[task][ids[position]] for position in scores]
            return unscaled(self.on, meaning, mean([scaled(self.on, meaning, a, {}) for a in scores.values()], weights))

        return by_task(members, data, ids, rule, choice)

    def _weights(self, task: Task, scores: Mapping[str, np.ndarray], labels: np.ndarray) -> dict[str, float]:
        """Return the nonzero weights for one task."""
        arrays = {name: self._summand(task, array) for name, array in scores.items()}
        size, total = math.ceil(self.fraction * len(arrays)), dict.fromkeys(arrays, 0.0)
        for number in range(self.bags if size < len(arrays) else 1):
            # The content of a bag depends on the ids of the members only, not on their order.
            bag = sorted(arrays, key=lambda name: hashlib.sha256(f"{number} {name}".encode()).digest())[:size]
            counts = self.selection(task, {name: arrays[name] for name in sorted(bag)}, labels)
            for name, count in counts.items():
                total[name] += count / sum(counts.values())
        return {name: weight / sum(total.values()) for name, weight in total.items() if weight}

    def _summand(self, task: Task, scores: np.ndarray) -> np.ndarray:
        """Return the summand for a member's scores, float64 [n, k]; for probabilities of a yes, minus 0.5."""
        if self.on == "probabilities" and task.kind in ("binary", "multilabel"):
            return probabilities(task, scores)[:, -task.outputs:] - 0.5
        return scaled(self.on, task, scores, {}).astype(np.float64)

    def selection(self, task: Task, arrays: Mapping[str, np.ndarray], labels: np.ndarray) -> dict[str, int]:
        """Return the number of times that each member of one bag is chosen; `arrays` are [n, k].

        Ties go to a member that is in the ensemble already, then to the better single member, then to the smaller id.
        """
        stacked = np.stack(list(arrays.values()))  # [M, n, k]
        single = dict(zip(arrays, self._values(task, stacked, labels, [1] * len(stacked)), strict=True))
        names = sorted(arrays, key=lambda name: (-single[name], name))
        stacked = np.stack([arrays[name] for name in names])
        starts = np.cumsum(stacked[:min(self.start, self.rounds)], axis=0)
        values = self._values(task, starts, labels, range(1, len(starts) + 1))
        size = int(values.argmax())  # the smallest of equals
        total, best = starts[size], values[size]
        chosen = kept = list(range(size + 1))
        while len(chosen) < self.rounds:
            candidates = self._values(task, total + stacked, labels, [len(chosen) + 1] * len(names))
            added = min(range(len(names)), key=lambda i: (-candidates[i], i not in chosen, i))
            total, chosen = total + stacked[added], [*chosen, added]
            if candidates[added] > best:
                best, kept = candidates[added], chosen
        return Counter(names[i] for i in kept)

    def _values(self, task: Task, sums: np.ndarray, labels: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
        """Return the metric [M] of the means of which `sums` [M, n, k] are the sums; negative where lower is better."""
        metric = leading(task)
        if metric.needs_scale:  # else sums decide as means do
            means = sums / np.array(sizes)[:, None, None]
            if self.on == "probabilities" and task.kind in ("binary", "multilabel"):
                means += 0.5
            if self.on == "probabilities" and task.kind == "binary":
                means = np.concatenate([1 - means, means], axis=2)
            sums = np.stack([unscaled(self.on, task, mean_) for mean_ in means])
        return metric.sign * metrics(task, sums, labels)
