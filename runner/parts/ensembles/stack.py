"""Stacking: a linear model on the members' scores."""

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
"""Absolute logit of a class without dev examples (negative), or of the only one; a probability of 1e-13."""


class Stack(Ensemble):
    """Stacked generalization (Wolpert 1992): per task, a logistic regression on all members' logits, fitted on dev,
    or a ridge regression for regression tasks, both with an L2 penalty on standardized inputs.
    """

    type = "stack"
    ordered = False

    members: tuple[Member, ...] = Field(min_length=1)
    """Models and ensembles; duplicates are merged. Inputs for a task are the scores of those that predict it."""
    penalty: float = Field(default=1.0, gt=0)
    """Weight of the squared coefficients relative to the sum of losses: higher values fit dev less closely."""

    def fit(self, members: Sequence[Predictions], data: Data, ids: Sequence[str]) -> Choice:
        """Return the linear model of each task: coefficients [k, inputs] by id, and intercepts (`levels`) [k]."""
        return {task: self._fitted(data.tasks[task], scores, labels) for task, scores, labels in
                on_dev(members, data, ids)}

    def apply(self, choice: Choice, members: Sequence[Predictions], data: Data, ids: Sequence[str]) -> Predictions:
        """Return the predictions of the linear models."""
        def rule(task: str, scores: dict[int, np.ndarray]) -> np.ndarray:
            by_id = {ids[position]: array.astype(np.float64) for position, array in scores.items()}
            coefficients = choice[task]["coefficients"]
            parts = [by_id[name] @ np.array(coefficients[name]).T for name in sorted(by_id)]
            return np.asarray(np.add.reduce(parts) + np.array(choice[task]["levels"]))

        return by_task(members, data, ids, rule, {task: model["coefficients"] for task, model in choice.items()})

    def _fitted(self, task: Task, scores: Mapping[str, np.ndarray], labels: np.ndarray) -> dict[str, Any]:
        """Fit the linear model of one task; the coefficients are for inputs that are not standardized."""
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
        """Fit slopes [k, inputs] and intercepts [k] on standardized inputs [n, inputs]."""
        from sklearn.linear_model import LogisticRegression, Ridge  # slow import

        if task.kind == "regression":
            ridge = Ridge(alpha=self.penalty).fit(inputs, labels)
            return ridge.coef_[None, :], np.array([ridge.intercept_])
        if task.kind == "multilabel":
            single = task.model_copy(update={"kind": "binary"})
            models = [self._model(single, inputs, column) for column in labels.T]
            return np.vstack([slopes for slopes, _ in models]), np.concatenate([levels for _, levels in models])
        slopes, levels = np.zeros((task.outputs, inputs.shape[1])), np.full(task.outputs, -CERTAIN)
        present = np.unique(labels).astype(int)
        if len(present) == 1:
            levels[0 if task.kind == "binary" else present[0]] = CERTAIN if present[0] or task.outputs > 1 else -CERTAIN
            return slopes, levels
        model = LogisticRegression(C=1 / self.penalty, max_iter=10_000, tol=1e-8).fit(inputs, labels.astype(int))
        if task.kind == "binary":
            return model.coef_, model.intercept_
        # For two classes, scikit-learn has the log odds of the second only.
        signs = np.array([[-0.5], [0.5]]) if len(present) == 2 else np.eye(len(present))
        slopes[present], levels[present] = signs @ model.coef_, signs @ model.intercept_
        return slopes, levels
