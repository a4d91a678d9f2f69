"""The mean of several members by the weights that fit dev best."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from ...part import Member
from ...tasks.data import Data, Task
from ...tasks.predictions import Predictions
from . import Choice, Ensemble, by_task, on_dev
from ._scales import as_binary, mean, rounded

RIDGE = 1e-6
"""Weight of the penalty that makes the fit unique, so that equal members share their weight equally."""


class Fitted(Ensemble):
    """The mean of the members' logits per task, by the weights on the simplex that fit dev best.

    A classification's and a binary task's have the least log loss at the best temperature, since accuracy itself has
    steps, on which weights fit noise. A regression's are those of the highest correlation, by least squares.
    """

    type = "fitted"
    ordered = False

    members: tuple[Member, ...] = Field(min_length=1)
    """Models and ensembles; one that is named twice is one. A task's weights are those of the members that have it."""

    def fit(self, members: Sequence[Predictions], data: Data, ids: Sequence[str]) -> Choice:
        """Return each member's weight by task and id; they sum to 1."""
        return {task: dict(zip(scores, map(rounded, weights(data.tasks[task], np.stack(list(scores.values())), labels)),
                               strict=True)) for task, scores, labels in on_dev(members, data, ids)}

    def apply(self, choice: Choice, members: Sequence[Predictions], data: Data, ids: Sequence[str]) -> Predictions:
        """Return the weighted mean."""
        def rule(task: str, scores: dict[int, np.ndarray]) -> np.ndarray:
            return mean(list(scores.values()), [choice[task][ids[position]] for position in scores])

        return by_task(members, data, ids, rule, choice)


def weights(task: Task, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the weights [M] of members with scores [M, n, k]; equal ones where no positive weight helps."""
    task, scores, labels = as_binary(task, scores, labels)
    wide = scores.astype(np.float64)
    found = _of_regression(wide[:, :, 0], labels) if task.kind == "regression" else _of_classes(task, wide, labels)
    total = found.sum()
    out: np.ndarray = found / total if total > 0 else np.full(len(scores), 1 / len(scores))
    return out


def _of_regression(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the a >= 0 that minimise |labels - a scores|^2, all less their means.

    A correlation is blind to scale: no weights on the simplex have a higher one than these divided by their sum.
    """
    from scipy.optimize import nnls  # here, since most builds fit nothing

    x, y = scores - scores.mean(axis=1, keepdims=True), labels - labels.mean()
    ridge = np.sqrt(RIDGE * (x * x).sum() / len(x)) * np.eye(len(x))
    found: np.ndarray = nnls(np.vstack([x.T, ridge]), np.concatenate([y, np.zeros(len(x))]))[0]
    return found


def _of_classes(task: Task, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the a >= 0 that minimise the mean log loss of the logits sum_m a_m scores_m, which is convex in a."""
    from scipy.optimize import minimize

    wide = scores if task.kind == "classification" else np.concatenate([np.zeros_like(scores), scores], axis=2)
    wide = wide - wide.mean(axis=2, keepdims=True)  # [M, n, c]
    rows, right = np.arange(len(labels)), labels.astype(int)
    of_right = wide[:, rows, right].mean(axis=1)  # [M]

    def loss(a: np.ndarray) -> tuple[float, np.ndarray]:
        total = np.tensordot(a, wide, 1)  # [n, c]
        top = total.max(axis=1)
        shares = np.exp(total - top[:, None])
        sums = shares.sum(axis=1)
        value = (np.log(sums) + top).mean() - a @ of_right + RIDGE / 2 * a @ a
        slope = np.tensordot(wide, shares / sums[:, None], 2) / len(rows) - of_right + RIDGE * a
        return float(value), slope

    start = np.full(len(wide), 1 / len(wide))
    done = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(wide),
                    options={"ftol": 1e-13, "gtol": 1e-9, "maxiter": 1000})
    found: np.ndarray = done.x
    return found
