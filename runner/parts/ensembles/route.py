"""One member per task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field, model_validator

from ...errors import TrainingError
from ...part import Member
from ...tasks.data import Data
from ...tasks.metrics import DIGITS, leading, metric
from ...tasks.predictions import Predictions
from . import Choice, Ensemble, by_task, on_dev


class Route(Ensemble):
    """Uses one member per task: the one given in `routes`, or the best on dev."""

    type = "route"
    ordered = False

    routes: dict[str, Member] = Field(default={})
    """Task -> the member that predicts it."""
    members: tuple[Member, ...] = ()
    """Models and ensembles, of which the best on dev is used for each task that is not in `routes`. Without them, such
    tasks are not predicted."""

    @model_validator(mode="after")
    def _routes(self) -> Route:
        if not self.routes and not self.members:
            raise ValueError("it needs `routes`, `members` to choose from, or both")
        return self

    @property
    def chooses(self) -> bool:
        """Whether members are chosen on dev."""
        return bool(self.members)

    def names_tasks(self) -> dict[str, str]:
        """Return the tasks in `routes`."""
        return {f"routes.{task}": task for task in self.routes}

    def summary(self) -> str:
        """Return a short description with the number of routes and candidates."""
        if not self.members:
            return f"route of {len(self.routes)}"
        return f"route of {len(self.routes)} and the best of {len(self.members)}" if self.routes else (
            f"route to the best of {len(self.members)}")

    def fit(self, members: Sequence[Predictions], data: Data, ids: Sequence[str]) -> Choice:
        """Return the id of the best member for each task not in `routes`; ties go to the smaller id."""
        listed = [p for p, role in enumerate(self.roles()) if not role]
        candidates = on_dev([members[p] for p in listed], data, [ids[p] for p in listed])
        best = {}
        for task, scores, labels in candidates:
            meaning = data.tasks[task]
            values = {name: leading(meaning).sign * round(metric(meaning, scores[name], labels), DIGITS)
                      for name in scores}
            best[task] = max(values, key=lambda name: values[name])
        return {task: name for task, name in best.items() if task not in self.routes}

    def chosen(self, choice: Choice, ids: Sequence[str]) -> list[int] | None:
        """Return the positions of the members used, one per task."""
        roles = self.roles()
        return [roles.index(task) for task in self.routes] + [
            p for p, name in enumerate(ids) if not roles[p] and name in choice.values()] if self.members else None

    def apply(self, choice: Choice, members: Sequence[Predictions], data: Data, ids: Sequence[str]) -> Predictions:
        """Return the predictions of each task's member; raise TrainingError if it does not predict the task."""
        used = {task: [name] for task, name in choice.items()}
        for task, member, name in zip(self.roles(), members, ids, strict=True):
            if task and (task not in data.tasks or not member.has(task)):
                raise TrainingError(f"nothing to route for `{task}`: {name} does not predict it")
            used |= {task: [name]} if task else {}

        def rule(task: str, scores: dict[int, np.ndarray]) -> np.ndarray:
            (array,) = scores.values()
            return array

        return by_task(members, data, ids, rule, used)
