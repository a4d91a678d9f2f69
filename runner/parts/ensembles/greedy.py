"""Members added one by one, each the one that helps most on dev."""

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
from ...tasks.metrics import metrics, probabilities
from ...tasks.predictions import Predictions
from . import Choice, Ensemble, by_task, on_dev
from ._scales import mean, scaled, unscaled


class Greedy(Ensemble):
    """Ensemble selection from a library (Caruana et al. 2004 §2, 2006): per task, add the member that helps most.

    It starts with the best members, adds with replacement the one whose mean with those that are there has the best
    metric, and keeps the best of the ensembles on the way; the choices from several bags of members are averaged.
    """

    type = "greedy"
    ordered = False

    members: tuple[Member, ...] = Field(min_length=1)
    """Models and ensembles to choose from; one that is named twice is one. A task is chosen from those that have it."""
    rounds: int = Field(default=20, ge=1)
    """Most members of the ensemble of one bag, those chosen more than once counted so often."""
    start: int = Field(default=3, ge=1)
    """It begins with at most so many of the best members: as many of them as have the best mean."""
    bags: int = Field(default=10, ge=1)
    """From how many random bags of members is chosen; with `fraction` 1 all bags are equal, and 1 is enough."""
    fraction: float = Field(default=0.5, gt=0, le=1)
    """Share of the members in a bag."""
    on: Literal["logits", "probabilities"] = "logits"
    """What is averaged."""

    def fit(self, members: Sequence[Predictions], data: Data, ids: Sequence[str]) -> Choice:
        """Return each chosen member's weight by task and id: its share of an ensemble, in the mean of all bags."""
        return {task: self._weights(data.tasks[task], scores, labels) for task, scores, labels in
                on_dev(members, data, ids)}

    def chosen(self, choice: Choice, ids: Sequence[str]) -> list[int]:
        """Return the positions of all that were chosen for some task, those with the most weight first."""
        total = {name: sum(weights.get(name, 0.0) for weights in choice.values()) for name in ids}
        return [ids.index(name) for name in sorted(total, key=lambda name: (-total[name], name)) if total[name]]

    def apply(self, choice: Choice, members: Sequence[Predictions], data: Data, ids: Sequence[str]) -> Predictions:
        """Return the weighted mean of the chosen members."""
        def rule(task: str, scores: dict[int, np.ndarray]) -> np.ndarray:
            meaning, weights = data.tasks[task], [choice[task][ids[position]] for position in scores]
            return unscaled(self.on, meaning, mean([scaled(self.on, meaning, a, {}) for a in scores.values()], weights))

        return by_task(members, data, ids, rule, choice)

    def _weights(self, task: Task, scores: Mapping[str, np.ndarray], labels: np.ndarray) -> dict[str, float]:
        """Return the weights of the members that one task's selections chose."""
        arrays = {name: self._counted(task, array) for name, array in scores.items()}
        size, total = math.ceil(self.fraction * len(arrays)), dict.fromkeys(arrays, 0.0)
        for number in range(self.bags if size < len(arrays) else 1):
            # Which members are in a bag depends on their ids only, not on their order.
            bag = sorted(arrays, key=lambda name: hashlib.sha256(f"{number} {name}".encode()).digest())[:size]
            counts = self.selection(task, {name: arrays[name] for name in sorted(bag)}, labels)
            for name, count in counts.items():
                total[name] += count / sum(counts.values())
        return {name: weight / sum(total.values()) for name, weight in total.items() if weight}

    def _counted(self, task: Task, scores: np.ndarray) -> np.ndarray:
        """Return what is added up of a member's scores: float64 [n, k], a binary task's probability less a half."""
        if self.on == "probabilities" and task.kind == "binary":
            return probabilities(task, scores)[:, 1:] - 0.5
        return scaled(self.on, task, scores, {}).astype(np.float64)

    def selection(self, task: Task, arrays: Mapping[str, np.ndarray], labels: np.ndarray) -> dict[str, int]:
        """Return how often each member of one bag is chosen; of equal gains a member that is in goes first.

        Among others the one that is better alone goes first, then the smaller id. `arrays` are [n, k].
        """
        stacked = np.stack(list(arrays.values()))  # [M, n, k]
        alone = dict(zip(arrays, metrics(task, stacked, labels), strict=True))
        names = sorted(arrays, key=lambda name: (-alone[name], name))
        stacked = np.stack([arrays[name] for name in names])
        # A sum stands for its mean: no metric depends on the scale.
        starts = np.cumsum(stacked[:min(self.start, self.rounds)], axis=0)
        reached = metrics(task, starts, labels)
        size = int(reached.argmax())  # the first of equals
        total, best = starts[size], reached[size]
        chosen = kept = list(range(size + 1))
        while len(chosen) < self.rounds:
            tried = metrics(task, total + stacked, labels)
            adding = min(range(len(names)), key=lambda i: (-tried[i], i not in chosen, i))
            total, chosen = total + stacked[adding], [*chosen, adding]
            if tried[adding] > best:
                best, kept = tried[adding], chosen
        return Counter(names[i] for i in kept)
