"""Metrics against scikit-learn and scipy: of examples, of bootstrap draws, and what their intervals promise."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sklearn

from runner.tasks import bootstrap
from runner.tasks.data import Kind, Task
from runner.tasks.metric_types import METRICS, USUAL, Name, wrong_metrics
from runner.tasks.metrics import measured, predict_labels, probabilities, values

Score = Callable[[Task, np.ndarray, np.ndarray, np.ndarray], float]
"""Reference: task, scores [n, k], labels and weights [n] -> value."""


def said(function: Callable[..., float], **options: object) -> Score:
    """Return the reference of a scikit-learn function of labels and predictions."""
    def value(task: Task, scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
        return float(function(labels, predict_labels(task, scores), sample_weight=weights, **options))

    return value


def kappa(task: Task, scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    found = sklearn.cohen_kappa_score(labels, predict_labels(task, scores), labels=range(task.classes),
                                      weights="quadratic", sample_weight=weights)
    return float(np.nan_to_num(found))


def drawn(function: Callable[[np.ndarray, np.ndarray], float]) -> Score:
    """Return the reference of a function of scores and labels that takes no weights."""
    def value(task: Task, scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
        rows = np.repeat(np.arange(len(labels)), weights.astype(int))
        return float(np.nan_to_num(function(scores[rows, 0], labels[rows])))

    return value


def both(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.nan_to_num(stats.pearsonr(x, y)[0]) + np.nan_to_num(stats.spearmanr(x, y)[0])) / 2


def over_classes(function: Callable[..., float], nothing: float) -> Score:
    """Return the mean of a scikit-learn function over the classes that some examples have and others have not."""
    def value(task: Task, scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
        if task.kind == "binary":
            pairs = [(labels == 1, scores[:, 0])]
        else:
            truth = labels if labels.ndim > 1 else np.eye(task.classes)[labels.astype(int)]
            pairs = list(zip(truth.T == 1, probabilities(task, scores).T, strict=True))
        found = [function(true, score, sample_weight=weights) for true, score in pairs
                 if 0 < weights[true].sum() < weights.sum()]
        return float(np.mean(found)) if found else nothing

    return value


def brier(task: Task, scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    shares = probabilities(task, scores)
    return float(np.average(((shares - np.eye(shares.shape[1])[labels.astype(int)]) ** 2).sum(axis=1) / 2,
                            weights=weights))


def calibration(task: Task, scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    """Guo et al. 2017, equation 3, for 15 bins (m / 15, (m + 1) / 15]."""
    shares = probabilities(task, scores)
    sure, right = shares.max(axis=1), predict_labels(task, scores) == labels
    total = 0.0
    for m in range(15):
        inside = (sure > m / 15) & (sure <= (m + 1) / 15) & (weights > 0)
        if inside.any():
            total += weights[inside].sum() * abs(np.average(right[inside], weights=weights[inside])
                                                 - np.average(sure[inside], weights=weights[inside]))
    return total / weights.sum()


REFERENCES: dict[str, Score] = {
    "accuracy": said(sklearn.accuracy_score),
    "balanced_accuracy": said(sklearn.balanced_accuracy_score),
    "f1": said(sklearn.f1_score),
    "macro_f1": said(sklearn.f1_score, average="macro"),
    "micro_f1": said(sklearn.f1_score, average="micro"),
    "mcc": said(sklearn.matthews_corrcoef),
    "quadratic_kappa": kappa,
    "pearson": drawn(lambda x, y: float(stats.pearsonr(x, y)[0])),
    "spearman": drawn(lambda x, y: float(stats.spearmanr(x, y)[0])),
    "pearson_spearman": drawn(both),
    "rmse": drawn(lambda x, y: float(np.sqrt(np.mean((x.astype(np.float64) - y) ** 2)))),
    "auroc": over_classes(sklearn.roc_auc_score, 0.5),
    "average_precision": over_classes(sklearn.average_precision_score, 0.0),
    "ece": calibration,
    "brier": brier,
}

PAIRS = [(kind, name) for name, metric in METRICS.items() for kind in metric.kinds]


def task_of(kind: str, classes: int = 3) -> Task:
    return Task(title="T", kind=kind, classes=classes, high=5.0)  # type: ignore[arg-type]


def labels_of(task: Task, rng: np.random.Generator, n: int) -> np.ndarray:
    if task.kind == "multilabel":
        return rng.integers(0, 2, (n, task.classes)).astype(np.float64)
    if task.kind == "regression":
        return rng.uniform(0, 5, n).round(1)
    return rng.integers(0, task.classes if task.kind == "classification" else 2, n).astype(np.float64)


@pytest.fixture(autouse=True)
def no_warnings_of_undefined_values() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def test_each_metric_has_a_reference_and_each_kind_a_usual_metric() -> None:
    assert REFERENCES.keys() == METRICS.keys() == {*get_args(Name)}
    assert all(kind in METRICS[name].kinds for kind, name in USUAL.items()) and len(USUAL) == 4


@pytest.mark.parametrize(("kind", "name"), PAIRS)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 40), digits=st.integers(0, 2))
def test_a_value_is_that_of_the_libraries(kind: str, name: str, seed: int, n: int, digits: int) -> None:
    rng = np.random.default_rng(seed)
    task = task_of(kind, int(rng.integers(2, 6)))
    labels = labels_of(task, rng, n)
    scores = rng.normal(size=(n, task.outputs)).round(digits).astype(np.float32)  # with ties
    found = measured(METRICS[name], task, scores, labels)
    assert found == pytest.approx(REFERENCES[name](task, scores, labels, np.ones(n)), abs=2e-6)
    assert values(METRICS[name], task, scores[None], labels)[0] == pytest.approx(found, abs=1e-6)


@pytest.mark.parametrize(("kind", "name"), PAIRS)
def test_a_draw_is_a_weighting_of_the_examples(kind: str, name: str) -> None:
    rng = np.random.default_rng(3)
    task, metric = task_of(kind), METRICS[name]
    labels = labels_of(task, rng, 50)
    systems = rng.normal(size=(70, 50, task.outputs)).round(1).astype(np.float32)  # more than are computed at a time
    outcomes = np.stack([metric.outcomes(task, scores, labels) for scores in systems], axis=1)
    made = bootstrap.resampled(task, metric, outcomes, labels, 5, 20)
    counts = np.concatenate(list(bootstrap.draws(50, 5, 20)))
    assert made.shape == (20, 70)
    for row, system in ((row, system) for row in range(20) for system in (0, 1, 69)):
        wanted = REFERENCES[name](task, systems[system], labels, counts[row].astype(float))
        assert made[row, system] == pytest.approx(wanted, abs=2e-5)


@pytest.mark.parametrize(("kind", "name"), PAIRS)
def test_perfect_predictions_have_the_best_value(kind: str, name: str) -> None:
    rng = np.random.default_rng(1)
    task, metric = task_of(kind), METRICS[name]
    labels = labels_of(task, rng, 30)
    sure = {"classification": lambda: 50 * np.eye(3)[labels.astype(int)] - 25,
            "binary": lambda: 50 * labels[:, None] - 25, "multilabel": lambda: 50 * labels - 25,
            "regression": lambda: labels[:, None]}[kind]().astype(np.float32)
    best = measured(metric, task, sure, labels)
    assert best == pytest.approx(metric.high if metric.sign > 0 else 0.0, abs=1e-6)
    assert metric.share(task, best) == pytest.approx(1.0, abs=1e-6)
    worse = measured(metric, task, np.roll(sure, 1, axis=0), labels)
    assert metric.sign * worse < metric.sign * best and metric.share(task, worse) < 1


def test_metrics_of_another_kind_are_named_with_those_that_fit() -> None:
    assert not wrong_metrics("binary", ("f1", "accuracy"))
    assert "`pearson` is no metric of a binary task" in wrong_metrics("binary", ("f1", "pearson"))
    assert "quadratic_kappa" in wrong_metrics("classification", ("f1",))
    assert "more than once" in wrong_metrics("binary", ("f1", "f1"))


# What intervals and tests promise ------------------------------------------------------------------------------------

WORLDS: dict[str, tuple[Kind, float]] = {
    "f1": ("binary", 0.8), "mcc": ("binary", 0.6), "spearman": ("regression", 6 / np.pi * np.arcsin(0.5**0.5 / 2))}
"""Metric -> kind of task, and its true value for the systems of `world`."""


def world(name: str, rng: np.random.Generator, n: int, systems: int) -> tuple[np.ndarray, np.ndarray]:
    """Return labels [n] and scores [systems, n, 1] of independent systems, all of one true value.

    Binary: half of the labels are yes, and a system is right with probability 0.8, so that F1 = 0.8 and MCC = 0.6.
    Regression: normal with r = 1 / sqrt(2), so that Spearman's is 6 / pi arcsin(r / 2) (Pearson 1907).
    """
    if WORLDS[name][0] == "binary":
        labels = rng.integers(0, 2, n).astype(np.float64)
        flipped = rng.random((systems, n)) > 0.8
        return labels, np.where(flipped, -1, 1)[:, :, None] * (2 * labels - 1)[None, :, None]
    labels = rng.standard_normal(n)
    return labels, (labels + rng.standard_normal((systems, n)))[:, :, None]


def promises(name: str, n: int, worlds: int, systems: int, resamples: int) -> tuple[list[bool], list[bool]]:
    """Return whether each interval holds the truth, and whether a test at 5 % tells two equal systems apart."""
    rng, (kind, truth) = np.random.default_rng(11), WORLDS[name]
    task, metric = task_of(kind), METRICS[name]
    held, rejected = [], []
    for number in range(worlds):
        labels, scores = world(name, rng, n, systems)
        outcomes = np.stack([metric.outcomes(task, array, labels) for array in scores], axis=1)
        draws = bootstrap.resampled(task, metric, outcomes, labels, number, resamples)
        low, high = bootstrap.interval(draws)
        held += ((low <= truth) & (truth <= high)).tolist()
        points = np.array([metric.value(task, column, labels) for column in outcomes.T])
        p = bootstrap.paired(points, points, draws)
        rejected += [bool(p[i, i + 1] <= 0.05) for i in range(0, systems, 2)]
    return held, rejected


@pytest.mark.parametrize("name", WORLDS)
def test_intervals_hold_the_truth_and_tests_keep_their_level(name: str) -> None:
    held, rejected = promises(name, 200, 60, 6, 400)
    assert stats.binomtest(sum(held), len(held), 0.94, "less").pvalue > 1e-3
    assert stats.binomtest(sum(rejected), len(rejected), 0.06, "greater").pvalue > 1e-3


@pytest.mark.long
@pytest.mark.parametrize("n", [200, 863, 4000])
@pytest.mark.parametrize("name", WORLDS)
def test_what_the_documentation_says_of_intervals_and_tests(name: str, n: int) -> None:
    held, rejected = promises(name, n, 100, 20, 500)
    print(f"\n{name}, {n}: coverage {np.mean(held):.1%} of {len(held)}, "
          f"level {np.mean(rejected):.1%} of {len(rejected)}")
    assert 0.935 <= np.mean(held) <= 0.965 and np.mean(rejected) <= 0.075


@pytest.mark.parametrize("n", [1, 20, 1101])
def test_where_all_is_right_the_lower_end_is_that_of_wilson(n: int) -> None:
    wanted = stats.binomtest(n, n).proportion_ci(0.95, method="wilson")
    assert bootstrap.wilson(n) == pytest.approx(wanted.low) and wanted.high == 1
