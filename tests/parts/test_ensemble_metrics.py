"""Ensembles of tasks with several labels, against those of binary tasks; choices by metrics other than the usual."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from members import handles, ids
from sklearn.linear_model import LogisticRegression

from runner.errors import TrainingError
from runner.parts.discovery import find
from runner.parts.ensembles import Ensemble
from runner.tasks.data import Data, Examples, Task
from runner.tasks.metrics import measures, score_split
from runner.tasks.predictions import Output, Predictions

N, K, MEMBERS = 60, 3, 4

SPLITS = ("dev", "test")


def data_of(tasks: dict[str, Task], labels: dict[str, np.ndarray]) -> Data:
    def examples(name: str) -> Examples:
        return Examples(tuple(map(str, range(len(labels[name])))), ("",) * len(labels[name]), labels=labels[name])

    return Data(tasks, {name: {split: examples(name) for split in SPLITS} for name in tasks})


def said(scores: dict[str, np.ndarray]) -> Predictions:
    outputs = {name: Output(tuple(map(str, range(len(array)))), array.astype(np.float32))
               for name, array in scores.items()}
    return Predictions(dict.fromkeys(SPLITS, outputs))


def combined(kind: str, members: Sequence[Predictions], data: Data, **options: Any) -> Predictions:
    cls = find(Ensemble, kind)  # type: ignore[type-abstract]
    assert cls
    return cls(members=handles(len(members)), **options).combine(members, data, ids(len(members)))


@pytest.fixture
def several() -> tuple[np.ndarray, list[np.ndarray]]:
    """Labels [N, K] and the logits of members of different skill."""
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 2, (N, K)).astype(np.float64)
    return labels, [(i * (2 * labels - 1) + 2 * rng.standard_normal((N, K))).astype(np.float32)
                    for i in range(MEMBERS)]


MULTI = Task(title="M", kind="multilabel", classes=K, labels=("a", "b", "c"))
BINARY = Task(title="B", kind="binary")


@pytest.mark.parametrize(("kind", "options"), [
    ("average", {}), ("vote", {}), ("average", {"on": "probabilities"})], ids=str)
def test_each_label_is_combined_like_a_binary_task(several: tuple[np.ndarray, list[np.ndarray]], kind: str,
                                                   options: dict[str, Any]) -> None:
    labels, members = several
    data = data_of({"m": MULTI}, {"m": labels})
    together = combined(kind, [said({"m": array}) for array in members], data, **options)
    tasks = {f"b{k}": BINARY for k in range(K)}
    apart = combined(kind, [said({f"b{k}": array[:, k:k + 1] for k in range(K)}) for array in members],
                     data_of(tasks, {f"b{k}": labels[:, k] for k in range(K)}), **options)
    wanted = np.hstack([apart.outputs["test"][f"b{k}"].scores for k in range(K)])
    np.testing.assert_allclose(together.outputs["test"]["m"].scores, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "options"), [
    ("fitted", {}), ("calibrated", {}), ("average", {"on": "zscores"}), ("average", {"on": "ranks"})], ids=str)
def test_all_labels_are_fitted_like_the_examples_of_one_binary_task(several: tuple[np.ndarray, list[np.ndarray]],
                                                                    kind: str, options: dict[str, Any]) -> None:
    labels, members = several
    data = data_of({"m": MULTI}, {"m": labels})
    together = combined(kind, [said({"m": array}) for array in members], data, **options)
    flat = combined(kind, [said({"b": array.reshape(-1, 1)}) for array in members],
                    data_of({"b": BINARY}, {"b": labels.reshape(-1)}), **options)
    wanted = flat.outputs["test"]["b"].scores.reshape(N, K)
    np.testing.assert_allclose(together.outputs["test"]["m"].scores, wanted, rtol=1e-4, atol=1e-4)


def test_a_stack_of_labels_is_a_logistic_regression_of_each_on_all_logits(
        several: tuple[np.ndarray, list[np.ndarray]]) -> None:
    labels, members = several
    found = combined("stack", [said({"m": array}) for array in members], data_of({"m": MULTI}, {"m": labels}))
    inputs = np.hstack(members).astype(np.float64)
    inputs = (inputs - inputs.mean(axis=0)) / inputs.std(axis=0)
    penalty = find(Ensemble, "stack").model_fields["penalty"].default  # type: ignore[type-abstract,union-attr]
    wanted = [LogisticRegression(C=1 / penalty, max_iter=10_000, tol=1e-8).fit(inputs, column).decision_function(inputs)
              for column in labels.T]
    np.testing.assert_allclose(found.outputs["test"]["m"].scores, np.stack(wanted, axis=1), rtol=1e-3, atol=1e-3)


CASES = [("regression", "rmse"), ("regression", "spearman"), ("binary", "brier"), ("binary", "auroc"),
         ("classification", "ece"), ("classification", "mcc"), ("multilabel", "macro_f1")]


def world(kind: str, metric: str) -> tuple[Data, list[Predictions]]:
    """Return a suite of one task, led by a metric, and members with their skill in a mixed order."""
    rng = np.random.default_rng(9)
    task = Task(title="T", kind=kind, classes=K, high=5.0, metrics=(metric,))  # type: ignore[arg-type]
    classes = rng.integers(0, K if kind == "classification" else 2, N)
    labels, signal = {
        "regression": lambda: (rng.uniform(0, 5, N), None), "binary": lambda: (classes, 2 * classes[:, None] - 1),
        "classification": lambda: (classes, np.eye(K)[classes]),
        "multilabel": lambda: ((m := rng.integers(0, 2, (N, K))), 2 * m - 1)}[kind]()
    signal = labels[:, None] if signal is None else 2 * signal
    members = [said({"t": signal + noise * rng.standard_normal((N, task.outputs))}) for noise in (1.5, 0.7, 2.5, 4.0)]
    return data_of({"t": task}, {"t": labels.astype(np.float64)}), members


@pytest.mark.parametrize(("kind", "metric"), CASES)
@pytest.mark.parametrize("on", ["logits", "probabilities"])
def test_greedy_selection_is_at_least_as_good_as_the_best_member(kind: str, metric: str, on: str) -> None:
    data, members = world(kind, metric)
    sign = measures(data.tasks)["t"].metric.sign
    alone = [sign * (score_split(member, data, "dev")["t"] or 0.0) for member in members]
    chosen = combined("greedy", members, data, on=on, fraction=1.0)
    assert sign * (score_split(chosen, data, "dev")["t"] or 0.0) >= max(alone) - 1e-6


@pytest.mark.parametrize(("kind", "metric"), CASES)
def test_best_and_route_choose_by_the_leading_metric(kind: str, metric: str) -> None:
    data, members = world(kind, metric)
    sign = measures(data.tasks)["t"].metric.sign
    scores = [score_split(member, data, "dev")["t"] or 0.0 for member in members]
    best = max(range(MEMBERS), key=lambda place: sign * scores[place])
    for kind_of_ensemble, options in (("best", {"by": "t"}), ("best", {}), ("route", {})):
        found = combined(kind_of_ensemble, members, data, **options)
        assert (found.outputs["dev"]["t"].scores == members[best].outputs["dev"]["t"].scores).all()


def test_best_chooses_by_a_further_metric() -> None:
    data, members = world("binary", "accuracy")
    task = data.tasks["t"].model_copy(update={"metrics": ("accuracy", "brier")})
    data = Data({"t": task}, data.splits)
    brier = [score_split(member, data, "dev")["t.brier"] for member in members]
    found = combined("best", members, data, by="t.brier")
    chosen = members[int(np.argmin(brier))]
    assert (found.outputs["dev"]["t"].scores == chosen.outputs["dev"]["t"].scores).all()
    with pytest.raises(TrainingError, match="no such score"):
        combined("best", members, data, by="t.f1")


def test_a_task_that_does_not_count_is_not_needed_for_an_overall() -> None:
    tasks = {"a": BINARY, "b": BINARY.model_copy(update={"counts": 0.0}),
             "c": Task(title="C", kind="regression", counts=3.0)}
    labels = np.arange(N) % 2
    data = data_of(tasks, {name: labels.astype(np.float64) for name in tasks})
    right = (2 * labels - 1)[:, None]
    scores = score_split(said({"a": right, "c": -right}), data, "dev")
    assert (scores["a"], scores["b"], scores["c"]) == (1.0, None, -1.0)
    assert scores["overall"] == (1 * 1.0 + 3 * 0.0) / 4
    assert score_split(said({"a": right, "b": right}), data, "dev")["overall"] is None
    alone = Data({"b": tasks["b"]}, {"b": data.splits["b"]})
    assert score_split(said({"b": right}), alone, "dev")["overall"] == 1.0, "where nothing else is trained"
