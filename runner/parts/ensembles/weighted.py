"""Weighted mean with given weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from ...errors import TrainingError
from ...part import Member
from ...tasks.data import Data
from ...tasks.predictions import Predictions
from . import Choice, Ensemble, by_task
from ._scales import mean, scaled, unscaled

Weight = Annotated[float, Field(ge=0)]


class Weighted(Ensemble):
    """Weighted mean of the members' logits per task with given weights; `fitted` learns weights from dev."""

    type = "weighted"
    ordered = False

    members: tuple[Member, ...] = Field(min_length=1)
    """Models and ensembles; duplicates count twice. For a task, the mean is over those that predict it."""
    weights: dict[str, Weight] = Field(default={})
    """Name of a member -> its weight, by default 1."""
    task_weights: dict[str, dict[str, Weight]] = Field(default={})
    """Task -> name of a member -> its weight for this task, instead of that in `weights`."""
    on: Literal["logits", "probabilities"] = "logits"
    """What is averaged."""

    def names_tasks(self) -> dict[str, str]:
        """Return the tasks in `task_weights`."""
        return {f"task_weights.{task}": task for task in self.task_weights}

    def names_members(self) -> dict[tuple[str, ...], str]:
        """Return the members in `weights` and `task_weights`."""
        paths: list[tuple[str, ...]] = [("weights", name) for name in self.weights]
        paths += [("task_weights", task, name) for task, by_name in self.task_weights.items() for name in by_name]
        return {path: path[-1] for path in paths}

    def canonical(self) -> dict[str, Any]:
        """Return the content of the id without members and their weights, which are in `signature`."""
        return super().canonical() | {"weights": None, "task_weights": None}

    def signature(self, ids: Sequence[str]) -> list[list[str]]:
        """Return each member's weights and id; names of members are not part of the id."""
        names = [member.name for member in self.members]
        weights = [[self._weight(name), {task: self._weight(name, task) for task in sorted(self.task_weights)}]
                   for name in names]
        return sorted(["members", json.dumps(pair), id] for pair, id in zip(weights, ids, strict=True))

    def apply(self, choice: Choice, members: Sequence[Predictions], data: Data, ids: Sequence[str]) -> Predictions:
        """Return the weighted mean; raise TrainingError if all members that predict a task have the weight 0."""
        def rule(task: str, scores: dict[int, np.ndarray]) -> np.ndarray:
            meaning = data.tasks[task]
            weights = [self._weight(self.members[p].name, task) for p in scores]
            if not any(weights):
                raise TrainingError(f"the weights of all members that predict `{task}` are 0")
            return unscaled(self.on, meaning, mean([scaled(self.on, meaning, a, {}) for a in scores.values()], weights))

        return by_task(members, data, ids, rule)

    def _weight(self, name: str, task: str = "") -> float:
        """Return the weight of a member for a task, or its general weight."""
        return self.task_weights.get(task, {}).get(name, self.weights.get(name, 1.0))
