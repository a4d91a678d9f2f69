"""One member for each task."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from ..errors import TrainingError
from ..parts import Member
from ..predictions import Output, Predictions
from ..suites import SPLITS, Data
from . import Choice, Ensemble


class Route(Ensemble):
    """The logits of one member per task."""

    type = "route"

    routes: dict[str, Member] = Field(min_length=1)
    """Task -> the member that predicts it. The system lacks a task that is not named."""

    def names_tasks(self) -> dict[str, str]:
        """Return the routed tasks."""
        return {f"routes.{task}": task for task in self.routes}

    def apply(self, choice: Choice, members: Sequence[Predictions], data: Data, ids: Sequence[str]) -> Predictions:
        """Return each task as its member predicts it; raise TrainingError where the member lacks the task."""
        outputs: dict[str, dict[str, Output]] = {}
        for task, member, name in zip(self.roles(), members, ids, strict=True):
            if task not in data.tasks or not member.has(task):
                raise TrainingError(f"nothing to route for `{task}`: {name} does not predict it")
            for split in SPLITS:
                scores = member.find(data, split, task, name)
                if scores is not None:
                    outputs.setdefault(split, {})[task] = Output(data.splits[task][split].ids, scores)
        return Predictions(outputs)
