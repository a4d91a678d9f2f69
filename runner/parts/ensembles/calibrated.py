"""The mean of members whose confidence is put right first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from ...part import Member
from ...tasks.data import Data, Task
from ...tasks.metrics import least_squares, probabilities
from ...tasks.predictions import Predictions
from . import Choice, Ensemble, by_task, on_dev
from ._scales import as_binary, mean, scaled, unscaled

COLDEST, HOTTEST = 0.01, 100.0
"""Bounds of a temperature: where a member is always right on dev, or no better than chance, there is no best one."""

HALVINGS = 50


class Calibrated(Ensemble):
    """The mean of the members' probabilities, each divided by a temperature that dev asks for (Guo et al. 2017, §4.2).

    A regression's scores are put on the line that fits the dev labels best, in place of a temperature.
    """

    type = "calibrated"
    ordered = False

    members: tuple[Member, ...] = Field(min_length=1)
    """Models and ensembles; one that is named twice counts twice. A task's mean is over the members that have it."""
    on: Literal["logits", "probabilities"] = "probabilities"
    """What is averaged: the calibrated probabilities, or the logits over their temperatures."""

    def fit(self, members: Sequence[Predictions], data: Data, ids: Sequence[str]) -> Choice:
        """Return each member's temperature, and its slope and level for a regression, by task and id."""
        return {task: {name: _line(array[:, 0], labels) if data.tasks[task].kind == "regression" else
                       {"temperature": temperature(data.tasks[task], array, labels)} for name, array in scores.items()}
                for task, scores, labels in on_dev(members, data, ids)}

    def apply(self, choice: Choice, members: Sequence[Predictions], data: Data, ids: Sequence[str]) -> Predictions:
        """Return the mean of what the members say once calibrated."""
        def rule(task: str, scores: dict[int, np.ndarray]) -> np.ndarray:
            meaning, arrays = data.tasks[task], []
            for position, array in scores.items():
                known = choice[task][ids[position]]
                fitted = (array * known["slope"] + known["level"] if meaning.kind == "regression"
                          else array / known["temperature"])
                arrays.append(scaled(self.on, meaning, fitted, {}))
            return unscaled(self.on, meaning, mean(arrays))

        return by_task(members, data, ids, rule)


def temperature(task: Task, scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the T > 0 for which softmax(scores / T) has the least log loss, for scores [n, k] and labels [n].

    The loss is convex in 1 / T: its slope is the mean of the expected logit less the label's, whose zero is halved in
    on. Of n = 0 rows nothing is learned.
    """
    task, scores, labels = as_binary(task, scores, labels)
    wide = scores if task.kind == "classification" else np.hstack([np.zeros_like(scores), scores])
    right = np.take_along_axis(wide, labels.astype(int)[:, None], axis=1).mean(dtype=np.float64)
    low, high = np.log(COLDEST), np.log(HOTTEST)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        shares = probabilities(task, scores / np.exp(middle))
        cold = (shares * wide).sum(axis=1).mean() > right  # the slope in 1 / T is positive: T must rise
        low, high = (middle, high) if cold else (low, middle)
    return float(np.exp((low + high) / 2))


def _line(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return slope and level of the least-squares line from scores [n] to labels [n]; a falling one becomes level."""
    slope, level = least_squares(scores.astype(np.float64), labels)
    return {"slope": slope, "level": level} if slope >= 0 else {"slope": 0.0, "level": float(labels.mean())}
