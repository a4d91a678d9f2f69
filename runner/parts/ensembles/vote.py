"""A vote of several members."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from ...part import Member
from ...tasks.data import Data
from ...tasks.metrics import logits, probabilities
from ...tasks.predictions import Predictions
from . import Choice, Ensemble, by_task
from ._scales import mean


class Vote(Ensemble):
    """The class that most members choose; of a regression the median of the members' scores."""

    type = "vote"
    ordered = False

    members: tuple[Member, ...] = Field(min_length=1)
    """Models and ensembles; one that is named twice votes twice. A task's voters are the members that have it."""

    def apply(self, choice: Choice, members: Sequence[Predictions], data: Data, ids: Sequence[str]) -> Predictions:
        """Return logits whose probabilities are the shares of the votes.

        The members' mean probabilities have one vote too, divided among the classes: it decides between equals.
        """
        def rule(task: str, scores: dict[int, np.ndarray]) -> np.ndarray:
            meaning, arrays = data.tasks[task], list(scores.values())
            if meaning.kind == "regression":
                return np.asarray(np.median(np.stack(arrays), axis=0))
            shares = mean([probabilities(meaning, array) for array in arrays])
            said = [array.argmax(axis=1) if meaning.kind == "classification" else array[:, 0] > 0 for array in arrays]
            votes = np.add.reduce([np.eye(shares.shape[1])[one.astype(int)] for one in said])
            return logits(meaning, (votes + shares) / (len(arrays) + 1))

        return by_task(members, data, ids, rule)
