"""Selection of the best members on dev."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from pydantic import Field

from ...errors import Problem, TrainingError, did_you_mean
from ...part import Member
from ...tasks.data import Data
from ...tasks.metrics import OVERALL, measures, score_split
from ...tasks.predictions import Predictions
from . import Choice, Ensemble, by_task
from ._scales import mean


class Best(Ensemble):
    """The member with the best dev score, or the mean of the best `count`."""

    type = "best"
    ordered = False

    members: tuple[Member, ...] = Field(min_length=1)
    """Models and ensembles to choose from; those that lack a task of the score are skipped."""
    by: str = OVERALL
    """Score to rank by: `overall`, the name of a task, or a further metric of it, such as `sentiment.macro_f1`."""
    count: int = Field(default=1, ge=1)
    """Number of members to choose; the logits of several are averaged."""

    def names_tasks(self) -> dict[str, str]:
        """Return the score in `by`, unless it is `overall`."""
        return {} if self.by == OVERALL else {"by": self.by}

    def summary(self) -> str:
        """Return a short description of the rule."""
        return f"best {f'{self.count} ' if self.count > 1 else ''}of {len(self.members)} by {self.by}"

    def shrunk(self, kept: Collection[int]) -> Best:
        """Return a copy with only these members; `count` is at most their number."""
        return super().shrunk(kept).model_copy(update={"count": min(self.count, len(kept))})

    def fit(self, members: Sequence[Predictions], data: Data, ids: Sequence[str]) -> Choice:
        """Return the ids of the chosen members, best first; ties go to the smaller id.

        Duplicates, such as a point of a sweep that is also a member, are merged.
        """
        columns = measures(data.tasks)
        if self.by != OVERALL and self.by not in columns:
            raise TrainingError(Problem(f"cannot choose the best by `{self.by}`: the suite has no such score",
                                        hint=did_you_mean(self.by, [OVERALL, *columns])))
        sign = 1 if self.by == OVERALL else columns[self.by].metric.sign
        ranked = []
        first = {name: position for position, name in reversed(list(enumerate(ids)))}
        for name, position in first.items():
            score = score_split(members[position], data, "dev", name)[self.by]
            if score is not None:
                ranked.append((-sign * score, name))
        if len(ranked) < self.count:
            raise TrainingError(f"cannot choose the best {self.count} by `{self.by}`: "
                                f"{len(ranked)} of {len(first)} members have this score on dev")
        return {self.by: [name for _, name in sorted(ranked)[:self.count]]}

    def chosen(self, choice: Choice, ids: Sequence[str]) -> list[int]:
        """Return the positions of the chosen members, best first."""
        return [ids.index(name) for name in choice[self.by]]

    def apply(self, choice: Choice, members: Sequence[Predictions], data: Data, ids: Sequence[str]) -> Predictions:
        """Return the mean of the chosen members' logits."""
        positions = self.chosen(choice, ids)

        def rule(task: str, scores: dict[int, np.ndarray]) -> np.ndarray:
            return mean(list(scores.values()))

        return by_task([members[p] for p in positions], data, [ids[p] for p in positions], rule)
