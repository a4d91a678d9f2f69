"""Intervals and paired tests: against scipy and their definitions, and what they promise, by simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from runner.tasks import bootstrap
from runner.tasks.data import Task
from runner.tasks.metrics import leading, metric, weighted

SST = Task(title="SST", kind="classification", classes=5)
STS = Task(title="STS", kind="regression", high=5.0)


def right(rng: np.random.Generator, n: int, systems: int, share: float = 0.7) -> np.ndarray:
    return (rng.random((n, systems)) < share).astype(np.float64)


def similar(rng: np.random.Generator, labels: np.ndarray, systems: int, noise: float = 1.0) -> np.ndarray:
    return labels[:, None] + noise * rng.standard_normal((len(labels), systems))


# ----------------------------------------------------------------------------------------------------------- resamples

def test_each_draw_has_as_many_examples_as_there_are_and_each_example_is_as_likely() -> None:
    counts = np.concatenate(list(bootstrap.draws(50, 1, 4000)))
    assert counts.shape == (4000, 50) and (counts.sum(axis=1) == 50).all()
    assert stats.chisquare(counts.sum(axis=0)).pvalue > 0.001
    expected = 4000 * 50 * stats.binom.pmf(range(4), 50, 1 / 50)
    assert np.bincount(counts.ravel())[:4] == pytest.approx(expected, rel=0.03)


def test_draws_are_the_same_each_time_and_others_for_each_seed() -> None:
    one, again, other = (np.concatenate(list(bootstrap.draws(9, seed, 20))) for seed in (1, 1, 2))
    assert (one == again).all() and (one != other).any()
    assert len({bootstrap.seed(*words) for words in (("a", "dev", "t"), ("a", "test", "t"), ("b", "dev", "t"))}) == 3


def test_draws_stay_within_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "BLOCK", 100)
    blocks = list(bootstrap.draws(30, 1, 10))
    assert [len(block) for block in blocks] == [3, 3, 3, 1]
    assert all((block.sum(axis=1) == 30).all() for block in blocks)


@pytest.mark.parametrize("task", [SST, STS], ids=lambda task: task.kind)
def test_a_resampled_metric_is_the_metric_of_the_drawn_examples(task: Task) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 80).astype(np.float64)
    scores = rng.standard_normal((3, 80, task.outputs)) + (0 if task is SST else labels[:, None])
    found = np.stack([(s.argmax(axis=1) == labels) if task is SST else s[:, 0] for s in scores], axis=1)
    made = bootstrap.resampled(task, leading(task), found.astype(np.float64), labels, 5, 40)
    counts = np.concatenate(list(bootstrap.draws(80, 5, 40)))
    for row, system in itertools.product(range(40), range(3)):
        drawn = np.repeat(np.arange(80), counts[row])
        assert made[row, system] == pytest.approx(metric(task, scores[system][drawn], labels[drawn]), abs=2e-5)


def test_what_is_constant_correlates_with_nothing() -> None:
    labels = np.array([0.0, 0.0, 0.0, 5.0])
    found = np.array([[1.0, 2.0], [1.0, 3.0], [1.0, 4.0], [1.0, 9.0]])
    made = bootstrap.resampled(STS, leading(STS), found, labels, 1, 200)
    lacks = np.concatenate(list(bootstrap.draws(4, 1, 200)))[:, 3] == 0
    assert (made[:, 0] == 0).all() and (made[lacks, 1] == 0).all() and (made[~lacks, 1] != 0).any()


def test_equal_systems_are_equal_wherever_they_stand_among_others() -> None:
    """Kernels of a BLAS add up the columns at the edge of a matrix in another order than those inside."""
    rng = np.random.default_rng(1)
    labels = rng.random(501)
    found = similar(rng, labels, 37)
    found[:, -1] = found[:, 0]
    whole = bootstrap.resampled(STS, leading(STS), found, labels, 3, 100)
    assert (whole[:, 0] == whole[:, -1]).all()
    for columns in ([0], [5, 0], list(range(36, -1, -1))):
        assert (bootstrap.resampled(STS, leading(STS), found[:, columns], labels, 3, 100) == whole[:, columns]).all()


def test_overall_is_that_of_the_scores() -> None:
    metrics = {"a": np.array([0.513, 0.49]), "b": np.array([0.752, 0.751]), "c": np.array([0.545, 0.557])}
    tasks = {"a": SST, "b": Task(title="", kind="binary"), "c": STS}
    assert weighted(metrics, tasks) == pytest.approx([0.679, 0.673], abs=5e-4)


# --------------------------------------------------------------------------------------------------------------- tests

def test_an_interval_of_an_accuracy_has_the_ends_of_the_binomial() -> None:
    found = right(np.random.default_rng(0), 400, 5)
    low, high = bootstrap.interval(bootstrap.resampled(SST, leading(SST), found, np.zeros(400), 1))
    exact = stats.binom.ppf([[0.025], [0.975]], 400, found.mean(axis=0)) / 400
    assert np.abs(np.stack([low, high]) - exact).max() <= 2.5 / 400


def test_an_interval_of_a_correlation_is_like_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random(300)
    found = similar(rng, labels, 1, 0.2)
    low, high = bootstrap.interval(bootstrap.resampled(STS, leading(STS), found, labels, 1))
    theirs = stats.bootstrap((found[:, 0], labels), lambda x, y: stats.pearsonr(x, y).statistic, paired=True,
                             n_resamples=2000, vectorized=False, method="percentile", rng=1).confidence_interval
    assert (low[0], high[0]) == pytest.approx((theirs.low, theirs.high), abs=0.006)


def test_mcnemar_is_the_exact_binomial_test_of_the_examples_that_only_one_has_right() -> None:
    found = right(np.random.default_rng(2), 120, 7)
    found[:, 6] = found[:, 0]
    p = bootstrap.mcnemar(found, found.mean(axis=0))
    for i, j in itertools.product(range(7), range(7)):
        only = [int(((found[:, a] == 1) & (found[:, b] == 0)).sum()) for a, b in ((i, j), (j, i))]
        assert p[i, j] == pytest.approx(stats.binomtest(only[0], sum(only)).pvalue if sum(only) else 1.0, abs=1e-12)


def test_the_paired_bootstrap_counts_draws_as_far_from_the_difference_as_that_is_from_nothing() -> None:
    rng = np.random.default_rng(3)
    scores, draws = rng.random(4), rng.random((50, 4))
    p = bootstrap.paired(scores, scores, draws)
    for i, j in itertools.product(range(4), range(4)):
        seen = scores[i] - scores[j]
        far = sum(abs(row[i] - row[j] - seen) >= abs(seen) for row in draws)
        assert p[i, j] == (1 + far) / 51


@given(st.lists(st.floats(0, 1), max_size=12), st.floats(0.001, 0.5))
def test_holm_rejects_what_the_step_down_procedure_rejects(p: list[float], alpha: float) -> None:
    rejected = set()
    for rank, position in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        if p[position] * (len(p) - rank) > alpha:
            break
        rejected.add(position)
    adjusted = bootstrap.holm(p)
    assert {i for i, value in enumerate(adjusted) if value <= alpha} == rejected
    assert all(one >= raw for one, raw in zip(adjusted, p, strict=True)) and all(value <= 1 for value in adjusted)


@settings(max_examples=30)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.randoms())
def test_holm_depends_on_no_order(p: list[float], random: object) -> None:
    places = list(range(len(p)))
    random.shuffle(places)  # type: ignore[attr-defined]
    shuffled = bootstrap.holm([p[place] for place in places])
    adjusted = bootstrap.holm(p)
    assert [adjusted[place] for place in places] == shuffled


# ---------------------------------------------------------------------------------------------------------- simulation

def coverage(rng: np.random.Generator, n: int, worlds: int, systems: int, resamples: int) -> dict[str, float]:
    """Return how often the intervals of accuracy, correlation and overall hold the true values.

    A world is a draw of labels, with independent systems of a true accuracy of 0.8 and a true r of 1 / sqrt(2).
    """
    hits: dict[str, list[float]] = {"accuracy": [], "correlation": [], "overall": []}
    truth = {"accuracy": 0.8, "correlation": 0.5**0.5}
    truth["overall"] = (truth["accuracy"] + (truth["correlation"] + 1) / 2) / 2
    for world in range(worlds):
        labels = rng.standard_normal(n)
        found = {"accuracy": (SST, right(rng, n, systems, 0.8)), "correlation": (STS, similar(rng, labels, systems))}
        seeds = {name: bootstrap.seed(name, str(world)) for name in found}
        draws = {name: bootstrap.resampled(task, leading(task), outcomes, labels, seeds[name], resamples)
                 for name, (task, outcomes) in found.items()}
        draws["overall"] = weighted(draws, {"accuracy": SST, "correlation": STS})
        for name, resamples_ in draws.items():
            low, high = bootstrap.interval(resamples_)
            hits[name] += ((low <= truth[name]) & (truth[name] <= high)).tolist()
    return {name: float(np.mean(found)) for name, found in hits.items()}


def levels(rng: np.random.Generator, n: int, worlds: int, systems: int, resamples: int) -> dict[str, float]:
    """Return how often tests at 5 % reject that two systems are equal that are, as often alike as models are."""
    rejected: dict[str, list[bool]] = {"mcnemar": [], "correlation": [], "overall": []}
    pairs = [(i, i + 1) for i in range(0, systems, 2)]
    for world in range(worlds):
        labels, hard = rng.standard_normal(n), rng.random((n, 1)) < 0.5
        answers = np.where(hard, right(rng, n, systems, 0.6), 1.0)
        scores = similar(rng, labels, systems) + rng.standard_normal((n, 1))
        a = bootstrap.resampled(SST, leading(SST), answers, labels, 2 * world, resamples)
        r = bootstrap.resampled(STS, leading(STS), scores, labels, 2 * world + 1, resamples)
        points = {"a": answers.mean(axis=0), "r": np.array([stats.pearsonr(s, labels).statistic for s in scores.T])}
        tasks = {"a": SST, "r": STS}
        both = weighted(points, tasks), weighted({"a": a, "r": r}, tasks)
        p = {"mcnemar": bootstrap.mcnemar(answers, points["a"]),
             "correlation": bootstrap.paired(points["r"], points["r"], r),
             "overall": bootstrap.paired(both[0], *both)}
        for name, values in p.items():
            rejected[name] += [bool(values[pair] <= 0.05) for pair in pairs]
    return {name: float(np.mean(found)) for name, found in rejected.items()}


def unmarked(rng: np.random.Generator, n: int, worlds: int, systems: int) -> tuple[float, float]:
    """Return how often one of several equally good systems loses its mark, and how often any does."""
    lost = []
    for _ in range(worlds):
        answers = np.where(rng.random((n, 1)) < 0.5, right(rng, n, systems, 0.6), 1.0)
        best = int(answers.mean(axis=0).argmax())
        others = [i for i in range(systems) if i != best]
        p = bootstrap.mcnemar(answers, answers.mean(axis=0))[best]
        lost.append([adjusted <= 0.05 for adjusted in bootstrap.holm([float(p[i]) for i in others])])
    return float(np.mean(lost)) * (systems - 1) / systems, float(np.mean(np.any(lost, axis=1)))


def test_intervals_hold_the_truth_about_95_times_in_100() -> None:
    found = coverage(np.random.default_rng(0), 300, 100, 6, 600)
    assert all(0.92 <= share <= 0.98 for share in found.values()), found


def test_equal_systems_are_told_apart_about_5_times_in_100_or_less() -> None:
    found = levels(np.random.default_rng(0), 300, 60, 12, 600)
    assert found["mcnemar"] <= 0.07 and 0.02 <= found["correlation"] <= 0.09 and 0.02 <= found["overall"] <= 0.09, found


def test_a_system_as_good_as_the_best_keeps_its_mark() -> None:
    one, _ = unmarked(np.random.default_rng(0), 400, 60, 20)
    assert one <= 0.05


@pytest.mark.long
@pytest.mark.parametrize("n", [200, 863, 4000])
def test_coverage_and_levels_in_full(n: int) -> None:
    """The figures of docs/significance.md; `-s` prints them."""
    rng = np.random.default_rng(n)
    held, told = coverage(rng, n, 200, 10, bootstrap.RESAMPLES), levels(rng, n, 200, 20, bootstrap.RESAMPLES)
    one, any_ = unmarked(rng, n, 400, 20)
    print(f"\nn = {n}: coverage {held}, level {told}, of 20 equals one given loses its mark {one:.3f}, any {any_:.3f}")
    assert all(0.935 <= share <= 0.965 for share in held.values())
    assert told["mcnemar"] <= 0.055 and max(told.values()) <= 0.065 and told["correlation"] >= 0.035
    assert one <= 0.02
