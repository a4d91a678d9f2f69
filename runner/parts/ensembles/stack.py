"""A linear model on the members' outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import Field

from ...part import Member
from ...tasks.data import Data, Task
from ...tasks.predictions import Predictions
from . import Choice, Ensemble, by_task, on_dev
from ._scales import rounded

CERTAIN = 30.0
"""The logit of what dev has no example of, or nothing else; its probability is 1e-13."""


class Stack(Ensemble):
    """A linear model on all of the members' logits, learned on dev (Wolpert 1992): per task a logistic regression,
    or a ridge regression of a regression's scores, both with an L2 penalty on standardised inputs.
    """

    type = "stack"
    ordered = False

    members: tuple[Member, ...] = Field(min_length=1)
    """Models and ensembles; one that is named twice is one. A task's inputs are of the members that have it."""
    penalty: float = Field(default=1.0, gt=0)
    """Weight of the squared coefficients against the sum of the losses: the higher, the less is learned from dev."""

    def fit(self, members: Sequence[Predictions], data: Data, ids: Sequence[str]) -> Choice:
        """Return the linear model of each task: the coefficients [k, inputs] by id, and the levels [k]."""
        return {task: self._fitted(data.tasks[task], scores, labels) for task, scores, labels in
                on_dev(members, data, ids)}

    def apply(self, choice: Choice, members: Sequence[Predictions], data: Data, ids: Sequence[str]) -> Predictions:
        """Return what the linear models say."""
        def rule(task: str, scores: dict[int, np.ndarray]) -> np.ndarray:
            by_id = {ids[position]: array.astype(np.float64) for position, array in scores.items()}
            coefficients = choice[task]["coefficients"]
            parts = [by_id[name] @ np.array(coefficients[name]).T for name in sorted(by_id)]
            return np.asarray(np.add.reduce(parts) + np.array(choice[task]["levels"]))

        return by_task(members, data, ids, rule, {task: model["coefficients"] for task, model in choice.items()})

    def _fitted(self, task: Task, scores: Mapping[str, np.ndarray], labels: np.ndarray) -> dict[str, Any]:
        """Return the linear model of one task, its standardisation worked into the coefficients."""
        inputs = np.hstack([array.astype(np.float64) for array in scores.values()])  # [n, inputs]
        middle, spread = inputs.mean(axis=0), inputs.std(axis=0)
        spread = np.where(spread > 0, spread, 1.0)
        slopes, levels = self._model(task, (inputs - middle) / spread, labels)  # [k, inputs], [k]
        slopes = slopes / spread
        levels = levels - slopes @ middle
        widths = np.cumsum([array.shape[1] for array in scores.values()])[:-1]
        parts = dict(zip(scores, np.split(slopes, widths, axis=1), strict=True))
        return {"coefficients": {name: [[rounded(x) for x in row] for row in part.tolist()]
                                 for name, part in parts.items()}, "levels": [rounded(x) for x in levels.tolist()]}

    def _model(self, task: Task, inputs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return slopes [k, inputs] and levels [k] on standardised inputs [n, inputs]."""
        from sklearn.linear_model import LogisticRegression, Ridge  # here, since it takes a second

        if task.kind == "regression":
            ridge = Ridge(alpha=self.penalty).fit(inputs, labels)
            return ridge.coef_[None, :], np.array([ridge.intercept_])
        slopes, levels = np.zeros((task.outputs, inputs.shape[1])), np.full(task.outputs, -CERTAIN)
        present = np.unique(labels).astype(int)
        if len(present) == 1:
            levels[0 if task.kind == "binary" else present[0]] = CERTAIN if present[0] or task.outputs > 1 else -CERTAIN
            return slopes, levels
        model = LogisticRegression(C=1 / self.penalty, max_iter=10_000, tol=1e-8).fit(inputs, labels.astype(int))
        if task.kind == "binary":
            return model.coef_, model.intercept_
        # Of two classes scikit-learn gives the log odds of the second.
        signs = np.array([[-0.5], [0.5]]) if len(present) == 2 else np.eye(len(present))
        slopes[present], levels[present] = signs @ model.coef_, signs @ model.intercept_
        return slopes, levels
