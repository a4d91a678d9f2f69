"""Majority vote."""

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
    """Majority vote of the members; for regression, the median of their scores."""

    type = "vote"
    ordered = False

    members: tuple[Member, ...] = Field(min_length=1)
    """Models and ensembles; duplicates vote twice. For a task, those that predict it."""

    def apply(self, choice: Choice, members: Sequence[Predictions], data: Data, ids: Sequence[str]) -> Predictions:
        """Return logits whose probabilities are the shares of votes.

        The members' mean probabilities count as one more vote, divided among the classes, which breaks ties.
        """
        def rule(task: str, scores: dict[int, np.ndarray]) -> np.ndarray:
            meaning, arrays = data.tasks[task], list(scores.values())
            if meaning.kind == "regression":
                return np.asarray(np.median(np.stack(arrays), axis=0))
            shares = mean([probabilities(meaning, array) for array in arrays])
            if meaning.kind == "multilabel":
                votes = np.add.reduce([array > 0 for array in arrays], dtype=np.float64)
                return logits(meaning, (votes + shares) / (len(arrays) + 1))
            labels = [array.argmax(axis=1) if meaning.kind == "classification" else array[:, 0] > 0 for array in arrays]
            votes = np.add.reduce([np.eye(shares.shape[1])[classes.astype(int)] for classes in labels])
            return logits(meaning, (votes + shares) / (len(arrays) + 1))

        return by_task(members, data, ids, rule)
