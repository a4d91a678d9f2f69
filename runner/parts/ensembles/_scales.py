"""Several members' scores as one: common scales, and means that no order changes.

Scores are k logits of a classification or of a multi-label task, 1 logit of a binary task, 1 number of a regression. On
every scale a member that stands alone decides as it does by its own scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from ...lazy import deferred
from ...tasks.data import Task
from ...tasks.metrics import logits, probabilities

with deferred("numpy"):
    import numpy as np

Scale = Literal["logits", "probabilities", "zscores", "ranks"]
"""What members are brought to before they are averaged; see `scaled`."""

LEAST = 2.0**-40
"""Least margin of a positive binary score on the scale of ranks."""

GRID = tuple(share / 100 for share in range(101))
"""Shares at which the distribution of a member's dev scores is remembered."""


def mean(arrays: Sequence[np.ndarray], weights: Sequence[float] | None = None) -> np.ndarray:
    """Return the weighted mean of arrays [n, c] in float64, summed in the order of their bytes: no name changes it."""
    pairs = sorted(zip(arrays, weights or [1.0] * len(arrays), strict=True), key=lambda p: (p[0].tobytes(), p[1]))
    total = np.add.reduce([array.astype(np.float64) * weight for array, weight in pairs], axis=0)
    blend: np.ndarray = total / sum(weight for _, weight in pairs)
    return blend


def learned(scale: Scale, task: Task, scores: np.ndarray) -> dict[str, Any]:
    """Return what a scale must know of a member's dev scores [n, k], whatever the labels are."""
    if scale == "zscores":
        spread = float(_centred(task, scores).std())
        return {"mean": float(scores.mean(dtype=np.float64)), "sd": spread if spread > 0 else 1.0}
    if scale == "ranks" and task.kind != "classification":
        return {"quantiles": np.quantile(scores.astype(np.float64), GRID).tolist()}
    return {}


def scaled(scale: Scale, task: Task, scores: np.ndarray, known: Mapping[str, Any]) -> np.ndarray:
    """Return scores [n, k] on a scale [n, c]; `known` is what was `learned` of the member.

    logits: as they are. probabilities: of each class; a regression's scores as they are. zscores: in standard
    deviations, a regression's from the mean, logits from their threshold. ranks: a regression's and a binary logit's
    place among the member's dev scores, the latter from that of the threshold; of a classification each class's rank.
    The logits of a multi-label task are so many binary ones.
    """
    if scale == "logits" or (scale == "probabilities" and task.kind == "regression"):
        return scores
    if scale == "probabilities":
        return probabilities(task, scores)
    if scale == "zscores":
        if task.kind == "classification":
            return np.asarray(_centred(task, scores) / known["sd"])
        centred = scores - known["mean"] if task.kind == "regression" else scores.astype(np.float64)
        return np.asarray(centred / known["sd"])
    if task.kind == "classification":
        return _ranks(scores)
    places = _place(scores, known["quantiles"])
    if task.kind == "regression":
        return places
    margins = places - _place(np.zeros(1), known["quantiles"])
    return np.asarray(np.where(scores > 0, np.maximum(margins, LEAST), np.minimum(margins, 0.0)))  # ties by rounding


def unscaled(scale: Scale, task: Task, blend: np.ndarray) -> np.ndarray:
    """Return the scores [n, k] that stand for a mean on a scale [n, c]."""
    return logits(task, blend) if scale == "probabilities" and task.kind != "regression" else blend


def as_binary(task: Task, scores: np.ndarray, labels: np.ndarray) -> tuple[Task, np.ndarray, np.ndarray]:
    """Return a multi-label task, scores [..., n, k] and labels [n, k] with each label of each example as an example.

    Those of another task are returned as they are.
    """
    if task.kind != "multilabel":
        return task, scores, labels
    flat = scores.reshape(*scores.shape[:-2], -1, 1)
    return task.model_copy(update={"kind": "binary"}), flat, labels.reshape(-1)


def _centred(task: Task, scores: np.ndarray) -> np.ndarray:
    """Return scores less their mean: of each example's classes, or of all examples."""
    wide = scores.astype(np.float64)
    centred: np.ndarray = wide - wide.mean(axis=1 if task.kind == "classification" else None, keepdims=True)
    return centred


def _ranks(scores: np.ndarray) -> np.ndarray:
    """Return the rank of each class of an example [n, k], 0 for the lowest; equal ones share the mean of theirs."""
    below = (scores[:, None, :] < scores[:, :, None]).sum(axis=2)
    above = (scores[:, None, :] > scores[:, :, None]).sum(axis=2)
    ranks: np.ndarray = (below + scores.shape[1] - 1 - above) / 2
    return ranks


def _place(scores: np.ndarray, quantiles: Iterable[float]) -> np.ndarray:
    """Return the share of the dev scores that lie below each score, equal ones counted half.

    Beyond the lowest and the highest dev score the share goes on rising, by less than half a step of the grid: a
    threshold that lies there is told from every score.
    """
    values, which = np.unique(np.array(list(quantiles)), return_inverse=True)
    shares = np.bincount(which, GRID) / np.bincount(which)
    wide = scores.astype(np.float64)
    beyond = np.where(wide < values[0], wide - values[0], np.maximum(wide - values[-1], 0.0))
    unit = values[-1] - values[0] or 1.0
    places: np.ndarray = np.interp(wide, values, shares) + beyond / (unit + np.abs(beyond)) / (2 * len(GRID))
    return places


def rounded(value: float) -> float:
    """Return a fitted number to 6 digits, so that the last bits of a solver's arithmetic decide nothing."""
    return float(f"{value:.6g}")
