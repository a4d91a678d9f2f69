"""Mean of the members' scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from ...part import Member
from ...tasks.data import Data
from ...tasks.predictions import Predictions
from . import Choice, Ensemble, by_task, on_dev
from ._scales import Scale, learned, mean, scaled, unscaled


class Average(Ensemble):
    """Mean of the members' logits per task, or of their scores on another scale."""

    type = "average"
    ordered = False

    members: tuple[Member, ...] = Field(min_length=1)
    """Models and ensembles; duplicates count twice. For a task, the mean is over those that predict it."""
    on: Scale = Field(default="logits", json_schema_extra={"later": True})
    """What is averaged: logits; probabilities of the classes; z-scores, logits or scores in standard deviations; or
    ranks, a classification's classes by rank (Borda's count) and other scores by their place among the dev scores."""

    @property
    def chooses(self) -> bool:
        """False: `fit` uses the distribution of the dev scores, not the labels."""
        return False

    def summary(self) -> str:
        """Return a short description with the scale."""
        return f"average of {len(self.members)}{'' if self.on == 'logits' else f' on {self.on}'}"

    def fit(self, members: Sequence[Predictions], data: Data, ids: Sequence[str]) -> Choice:
        """Return statistics of each member's dev scores, if the scale needs them."""
        if self.on not in ("zscores", "ranks"):
            return {}
        return {task: {name: learned(self.on, data.tasks[task], array) for name, array in scores.items()}
                for task, scores, _ in on_dev(members, data, ids)}

    def apply(self, choice: Choice, members: Sequence[Predictions], data: Data, ids: Sequence[str]) -> Predictions:
        """Return the mean, which does not depend on order and ids of the members."""
        def rule(task: str, scores: dict[int, np.ndarray]) -> np.ndarray:
            meaning, known = data.tasks[task], choice.get(task, {})
            on_scale = [scaled(self.on, meaning, array, known.get(ids[p], {})) for p, array in scores.items()]
            return unscaled(self.on, meaning, mean(on_scale))

        return by_task(members, data, ids, rule)
