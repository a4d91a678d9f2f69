"""Each node type against an independent implementation, and what must not matter to any: order, names, test labels."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_data import DATA, N, made_data, skilled
from members import TASKS, bits, handles, ids
from pydantic import ValidationError
from scipy import optimize, special, stats
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from runner.errors import TrainingError
from runner.part import Member
from runner.parts.ensembles import Ensemble
from runner.parts.ensembles._scales import GRID, learned, scaled
from runner.parts.ensembles.average import Average
from runner.parts.ensembles.best import Best
from runner.parts.ensembles.calibrated import Calibrated, temperature
from runner.parts.ensembles.fitted import Fitted
from runner.parts.ensembles.greedy import Greedy
from runner.parts.ensembles.route import Route
from runner.parts.ensembles.stack import Stack
from runner.parts.ensembles.vote import Vote
from runner.parts.ensembles.weighted import Weighted
from runner.tasks.data import Data, Examples, Task
from runner.tasks.metrics import DIGITS, metric, metrics, score_split
from runner.tasks.predictions import Output, Predictions


@dataclass(frozen=True)
class Named(Member):
    name: str


MEMBERS = [skilled(seed, seed / 6) for seed in range(7)]
NODES: dict[str, Ensemble] = {
    "average": Average(members=handles(7)),
    **{f"average-{on}": Average(members=handles(7), on=on) for on in ("probabilities", "zscores", "ranks")},
    "vote": Vote(members=handles(7)), "calibrated": Calibrated(members=handles(7)),
    "calibrated-logits": Calibrated(members=handles(7), on="logits"),
    "weighted": Weighted(members=tuple(Named(f"m{i}") for i in range(7))), "fitted": Fitted(members=handles(7)),
    "greedy": Greedy(members=handles(7)), "greedy-probabilities": Greedy(members=handles(7), on="probabilities"),
    "stack": Stack(members=handles(7)), "route": Route(members=handles(7)), "best": Best(members=handles(7), count=2),
}
CHOOSING = {"calibrated", "calibrated-logits", "fitted", "greedy", "greedy-probabilities", "stack", "route", "best"}


def dev(predictions: Predictions, task: str) -> np.ndarray:
    return predictions.outputs["dev"][task].scores.astype(np.float64)


def labels_of(task: str, data: Data = DATA) -> np.ndarray:
    found = data.splits[task]["dev"].labels
    assert found is not None
    return found


def chances(task: str, scores: np.ndarray) -> np.ndarray:
    """Return probabilities by scipy."""
    if task == "sentiment":
        return np.asarray(special.softmax(scores, axis=1))
    return np.hstack([special.expit(-scores), special.expit(scores)])


# --------------------------------------------------------------------------------------------- what holds for all nodes

@pytest.mark.parametrize("name", NODES)
def test_the_order_of_members_changes_no_byte(name: str) -> None:
    node, order = NODES[name], np.random.default_rng(1).permutation(7)
    turned = node.combine([MEMBERS[i] for i in order], DATA, [ids(7)[i] for i in order])
    assert bits(turned) == bits(node.combine(MEMBERS, DATA, ids(7)))


@pytest.mark.parametrize("name", NODES)
def test_a_choice_is_json_and_applies_to_examples_without_labels(name: str) -> None:
    """What was fitted on dev predicts other examples: new ids, no labels, whichever split they are called."""
    node = NODES[name]
    made, choice = node.combine(MEMBERS, DATA, ids(7)), json.loads(json.dumps(node.fit(MEMBERS, DATA, ids(7))))
    splits = {task: {"test": replace(by_split["test"], ids=tuple(map("new {}".format, by_split["test"].ids)),
                                     labels=None)} for task, by_split in DATA.splits.items()}
    new = [Predictions({"test": {task: Output(splits[task]["test"].ids, output.scores)
                                 for task, output in m.outputs["test"].items()}}) for m in MEMBERS]
    applied = node.apply(choice, new, Data(TASKS, splits), ids(7))
    for task in TASKS:
        assert np.array_equal(applied.outputs["test"][task].scores, made.outputs["test"][task].scores)
    assert set(applied.outputs) == {"test"}


@pytest.mark.parametrize("name", NODES)
def test_choosing_looks_at_dev_labels_only(name: str) -> None:
    node, rng = NODES[name], np.random.default_rng(2)
    choice = node.fit(MEMBERS, DATA, ids(7))
    for changed in ("test", "dev"):
        splits = {task: {**by_split, changed: replace(by_split[changed],
                                                      labels=rng.permutation(by_split[changed].labels))}
                  for task, by_split in DATA.splits.items()}
        same = node.fit(MEMBERS, Data(TASKS, splits), ids(7)) == choice
        assert same == (changed == "test" or name not in CHOOSING)
    assert node.chooses == (name in CHOOSING)


@pytest.mark.parametrize("name", sorted({"fitted", "greedy", "stack", "route", "best"}))
def test_a_member_that_is_named_twice_is_one(name: str) -> None:
    twice = NODES[name].model_copy(update={"members": handles(9)})
    made = twice.combine([*MEMBERS, MEMBERS[6], MEMBERS[2]], DATA, [*ids(7), ids(7)[6], ids(7)[2]])
    assert bits(made) == bits(NODES[name].combine(MEMBERS, DATA, ids(7)))


@pytest.mark.parametrize("name", NODES)
def test_a_task_is_combined_from_the_members_that_have_it(name: str) -> None:
    node = NODES[name].model_copy(update={"members": NODES[name].children()[:3]})
    partial = [skilled(1, tasks=["sentiment", "paraphrase"]), skilled(2, tasks=["sentiment"]), skilled(3)]
    if name == "best":
        node = Best(members=handles(3), by="sentiment", count=3)
    made = node.combine(partial, DATA, ids(3))
    assert set(made.outputs["test"]) == set(TASKS)
    assert score_split(made, DATA, "dev")["similarity"] == pytest.approx(
        score_split(partial[2], DATA, "dev")["similarity"], abs=2e-3 if "ranks" not in name else 0.1)


@pytest.mark.parametrize("name", sorted(CHOOSING - {"best"}))
def test_what_cannot_be_fitted_is_said(name: str) -> None:
    node = NODES[name]
    unlabelled = Data(TASKS, {task: {s: replace(e, labels=None) for s, e in by_split.items()}
                              for task, by_split in DATA.splits.items()})
    with pytest.raises(TrainingError, match="dev split has no labels"):
        node.fit(MEMBERS, unlabelled, ids(7))
    silent = Predictions({"test": MEMBERS[0].outputs["test"]})
    with pytest.raises(TrainingError, match="000000000000 predicts it, but not on dev"):
        node.fit([silent, *MEMBERS[1:]], DATA, ids(7))


# ------------------------------------------------------------------------------------------------------------- average

def test_average_on_probabilities_is_the_mean_of_softmax_and_sigmoid() -> None:
    made = NODES["average-probabilities"].combine(MEMBERS, DATA, ids(7))
    for task in ("sentiment", "paraphrase"):
        wanted = np.mean([chances(task, dev(m, task)) for m in MEMBERS], axis=0)
        np.testing.assert_allclose(chances(task, dev(made, task)), wanted, atol=1e-6)
    np.testing.assert_allclose(dev(made, "similarity"), np.mean([dev(m, "similarity") for m in MEMBERS], 0), atol=1e-5)


def test_average_on_zscores() -> None:
    made = NODES["average-zscores"].combine(MEMBERS, DATA, ids(7))
    np.testing.assert_allclose(dev(made, "similarity"),
                               np.mean([stats.zscore(dev(m, "similarity")) for m in MEMBERS], axis=0), atol=1e-5)
    louder = [Predictions({s: {t: Output(o.ids, o.scores * np.float32(2**i)) for t, o in by_task.items()}
                           for s, by_task in m.outputs.items()}) for i, m in enumerate(MEMBERS)]
    same = NODES["average-zscores"].combine(louder, DATA, ids(7))  # loudness does not matter
    for task in TASKS:
        np.testing.assert_allclose(dev(same, task), dev(made, task), atol=1e-5)


def test_average_on_ranks() -> None:
    made = NODES["average-ranks"].combine(MEMBERS, DATA, ids(7))
    wanted = np.mean([stats.rankdata(dev(m, "sentiment"), axis=1) - 1 for m in MEMBERS], axis=0)
    np.testing.assert_allclose(dev(made, "sentiment"), wanted, atol=1e-6)
    places = np.mean([(stats.rankdata(dev(m, "similarity")) - 1) / (N - 1) for m in MEMBERS], axis=0)
    np.testing.assert_allclose(dev(made, "similarity")[:, 0], places, atol=1 / len(GRID))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["probabilities", "zscores", "ranks"]))
def test_a_member_that_stands_alone_decides_as_ever_on_every_scale(seed: int, on: str) -> None:
    alone = skilled(seed)
    made = Average(members=handles(1), on=on).combine([alone], DATA, ids(1))
    assert np.array_equal(dev(made, "sentiment").argmax(1), dev(alone, "sentiment").argmax(1))
    assert np.array_equal(dev(made, "paraphrase") > 0, dev(alone, "paraphrase") > 0)
    ranks = stats.rankdata(dev(alone, "similarity"))
    assert (np.diff(dev(made, "similarity")[ranks.argsort(), 0]) >= 0).all()


@pytest.mark.parametrize(("dev_scores", "test_scores"), [
    ([3.0, 4.0, 5.0, 9.0], [1.0, 3.0, 20.0, 0.5]), ([-3.0, -4.0, -1.0, -1.0], [-1.0, -9.0, 1.0, -0.5]),
    ([1.0, 1.0, 1.0, 1.0], [2.0, 1.0, 0.5, -1.0]), ([0.0, 0.0, 1e-9, 5.0], [1e-12, -1e-12, 0.0, 7.0])])
def test_ranks_keep_every_decision_and_the_order_beyond_the_dev_scores(
    dev_scores: list[float], test_scores: list[float]) -> None:
    """A member that says yes to all of dev says yes wherever it did; scores beyond those of dev keep their order."""
    task = DATA.tasks["paraphrase"]
    known = learned("ranks", task, np.array(dev_scores)[:, None])
    ranks = scaled("ranks", task, np.array(test_scores)[:, None], known)[:, 0]
    assert np.array_equal(ranks > 0, np.array(test_scores) > 0)
    assert (np.diff(ranks[np.argsort(test_scores)]) >= 0).all()


# ---------------------------------------------------------------------------------------------------------------- vote

def test_vote_is_the_majority() -> None:
    made = NODES["vote"].combine(MEMBERS, DATA, ids(7))
    said = [dev(m, "sentiment").argmax(1) for m in MEMBERS]
    shares = np.mean([chances("sentiment", dev(m, "sentiment")) for m in MEMBERS], axis=0)
    for row, winner in enumerate(dev(made, "sentiment").argmax(1)):
        votes = Counter(int(one[row]) for one in said)
        tied = [c for c, count in votes.items() if count == max(votes.values())]
        assert winner == max(tied, key=lambda c: shares[row, c])
    yes = np.sum([dev(m, "paraphrase")[:, 0] > 0 for m in MEMBERS], axis=0)
    assert np.array_equal(dev(made, "paraphrase")[:, 0] > 0, yes > 3.5)
    np.testing.assert_allclose(dev(made, "similarity"), np.median([dev(m, "similarity") for m in MEMBERS], axis=0))


# ---------------------------------------------------------------------------------------------------------- calibrated

@pytest.mark.parametrize("task", ["sentiment", "paraphrase"])
@pytest.mark.parametrize("seed", range(4))
def test_temperature_has_the_least_log_loss(task: str, seed: int) -> None:
    scores, labels = dev(skilled(seed, 0.5), task) * (1 + seed), labels_of(task)

    def loss(log: float) -> float:
        return -float(np.log(chances(task, scores / np.exp(log))[np.arange(N), labels.astype(int)]).mean())

    best = optimize.minimize_scalar(loss, bounds=(np.log(0.01), np.log(100)), method="bounded",
                                    options={"xatol": 1e-9})
    found = temperature(TASKS[task], scores.astype(np.float32), labels)
    assert loss(np.log(found)) == pytest.approx(best.fun, abs=1e-9)
    assert found == pytest.approx(np.exp(best.x), rel=1e-3)


def test_temperature_is_bounded_where_there_is_no_best_one() -> None:
    right = np.array([[3.0], [-2.0]], np.float32)
    assert temperature(TASKS["paraphrase"], right, np.array([1, 0])) == pytest.approx(0.01)
    assert temperature(TASKS["paraphrase"], right, np.array([0, 1])) == pytest.approx(100)


def test_calibrated_is_the_mean_at_these_temperatures_and_on_these_lines() -> None:
    node = NODES["calibrated"]
    made, choice = node.combine(MEMBERS, DATA, ids(7)), node.fit(MEMBERS, DATA, ids(7))
    for task in ("sentiment", "paraphrase"):
        wanted = np.mean([chances(task, dev(m, task) / choice[task][name]["temperature"])
                          for m, name in zip(MEMBERS, ids(7), strict=True)], axis=0)
        np.testing.assert_allclose(chances(task, dev(made, task)), wanted, atol=1e-6)
    lines = [np.polyval(np.polyfit(dev(m, "similarity")[:, 0], labels_of("similarity"), 1), dev(m, "similarity"))
             for m in MEMBERS if np.corrcoef(dev(m, "similarity")[:, 0], labels_of("similarity"))[0, 1] > 0]
    flat = [np.full((N, 1), labels_of("similarity").mean())] * (7 - len(lines))  # no slope falls
    np.testing.assert_allclose(dev(made, "similarity"), np.mean([*lines, *flat], axis=0), atol=1e-4)


# ------------------------------------------------------------------------------------------------------------ weighted

def weighted(**fields: object) -> Weighted:
    return Weighted(members=(Named("a"), Named("b"), Named("c")), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("on", ["logits", "probabilities"])
def test_weighted_is_the_weighted_mean(on: str) -> None:
    node = weighted(weights={"a": 3.0, "c": 0.5}, task_weights={"similarity": {"a": 0.0}}, on=on)
    made = node.combine(MEMBERS[:3], DATA, ids(3))
    for task, weights in (("sentiment", [3, 1, 0.5]), ("paraphrase", [3, 1, 0.5]), ("similarity", [0, 1, 0.5])):
        arrays = [dev(m, task) for m in MEMBERS[:3]]
        if on == "probabilities" and task != "similarity":
            wanted = np.average([chances(task, a) for a in arrays], axis=0, weights=weights)
            np.testing.assert_allclose(chances(task, dev(made, task)), wanted, atol=1e-6)
        else:
            np.testing.assert_allclose(dev(made, task), np.average(arrays, axis=0, weights=weights), atol=1e-5)


def test_weights_go_with_the_name_and_the_id_with_the_weights() -> None:
    node = weighted(weights={"a": 3.0, "c": 0.5}, task_weights={"similarity": {"a": 0.0}})
    turned = Weighted(members=(Named("x"), Named("z"), Named("y")), weights={"z": 3.0, "x": 0.5},
                      task_weights={"similarity": {"z": 0.0}})  # other names, another order
    c, a, b = MEMBERS[2], MEMBERS[0], MEMBERS[1]
    made = node.combine([a, b, c], DATA, ["1", "2", "3"])
    assert bits(made) == bits(turned.combine([c, a, b], DATA, ["3", "1", "2"]))
    assert node.signature(["1", "2", "3"]) == turned.signature(["3", "1", "2"]) != node.signature(["2", "1", "3"])
    assert node.canonical() == turned.canonical()
    assert weighted(weights={"a": 2.0}).signature(["1", "2", "3"]) != weighted().signature(["1", "2", "3"])


def test_weights_that_are_all_0_or_negative_are_refused() -> None:
    with pytest.raises(TrainingError, match="the weights of all members that predict `similarity` are 0"):
        weighted(task_weights={"similarity": dict.fromkeys("abc", 0.0)}).combine(MEMBERS[:3], DATA, ids(3))
    for fields in ({"weights": {"a": -1.0}}, {"task_weights": {"sentiment": {"a": -1.0}}}):
        with pytest.raises(ValidationError, match="greater than or equal to 0"):
            weighted(**fields)


# -------------------------------------------------------------------------------------------------------------- fitted

@pytest.mark.parametrize("task", ["sentiment", "paraphrase"])
def test_fitted_weights_have_the_least_log_loss(task: str) -> None:
    """Against another solver, over the weights and the temperature."""
    found = NODES["fitted"].fit(MEMBERS, DATA, ids(7))[task]
    assert sum(found.values()) == pytest.approx(1, abs=1e-5) and min(found.values()) >= 0
    arrays, right = np.stack([dev(m, task) for m in MEMBERS]), labels_of(task).astype(int)

    def loss(free: np.ndarray) -> float:
        return -float(np.log(chances(task, np.tensordot(free, arrays, 1))[np.arange(N), right]).mean())

    best = optimize.minimize(loss, np.full(7, 0.1), bounds=[(0, None)] * 7, method="SLSQP", options={"ftol": 1e-12})
    np.testing.assert_allclose(list(found.values()), best.x / best.x.sum(), atol=2e-3)


def test_fitted_weights_of_a_regression_have_the_highest_correlation() -> None:
    found = np.array(list(NODES["fitted"].fit(MEMBERS, DATA, ids(7))["similarity"].values()))
    arrays, labels = np.stack([dev(m, "similarity")[:, 0] for m in MEMBERS]), labels_of("similarity")
    reached = np.corrcoef(found @ arrays, labels)[0, 1]
    others = np.random.default_rng(0).dirichlet(np.ones(7), 3000)
    others = np.vstack([others, 0.9 * found + 0.1 * others])
    assert reached >= max(np.corrcoef(w @ arrays, labels)[0, 1] for w in others) - 1e-7


def test_equal_members_share_their_weight_and_useless_ones_are_averaged() -> None:
    a, b = MEMBERS[6], MEMBERS[3]
    shared = Fitted(members=handles(3)).fit([a, b, a], DATA, ids(3))
    alone = Fitted(members=handles(2)).fit([a, b], DATA, ids(2))
    for task in TASKS:
        first, second, third = shared[task].values()
        assert first == pytest.approx(third, abs=1e-3)
        assert second == pytest.approx(list(alone[task].values())[1], abs=2e-3)
    wrong = Predictions({s: {t: Output(o.ids, -o.scores) for t, o in by.items()} for s, by in a.outputs.items()})
    assert list(Fitted(members=handles(2)).fit([wrong, wrong], DATA, ids(2))["similarity"].values()) == [0.5, 0.5]


# -------------------------------------------------------------------------------------------------------------- greedy

def reference(task: str, arrays: dict[str, np.ndarray], labels: np.ndarray, rounds: int, start: int) -> list[str]:
    """Return the ensemble of one bag, by the words of Caruana et al. and nothing else."""
    def reached(names: Sequence[str]) -> float:
        return round(metric(TASKS[task], np.mean([arrays[n] for n in names], axis=0), labels), DIGITS)

    ranked = sorted(arrays, key=lambda n: (-reached([n]), n))
    chosen = max((ranked[:size] for size in range(1, min(start, rounds, len(ranked)) + 1)), key=reached)
    kept = chosen
    while len(chosen) < rounds:
        adding = min(ranked, key=lambda n: (-reached([*chosen, n]), n not in chosen, ranked.index(n)))
        chosen = [*chosen, adding]
        kept = max(kept, chosen, key=reached)
    return kept


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(list(TASKS)), st.integers(1, 7), st.integers(1, 4))
def test_greedy_is_the_selection_of_the_paper(seed: int, task: str, rounds: int, start: int) -> None:
    data = made_data(seed, 15)  # few rows make many ties
    members = [skilled(seed + i, 0.3, data) for i in range(5)]
    node = Greedy(members=handles(5), rounds=rounds, start=start, bags=1, fraction=1.0)
    kept = reference(task, {n: dev(m, task) for n, m in zip(ids(5), members, strict=True)}, labels_of(task, data),
                     rounds, start)
    weights = {name: pytest.approx(count / len(kept)) for name, count in sorted(Counter(kept).items())}
    assert node.fit(members, data, ids(5))[task] == weights
    made = node.combine(members, data, ids(5))
    at = dict(zip(ids(5), members, strict=True))
    np.testing.assert_allclose(dev(made, task), np.mean([dev(at[n], task) for n in kept], axis=0), atol=1e-4)


def test_no_single_exchange_or_addition_beats_what_is_found_for_small_cases() -> None:
    """The best of all multisets of up to 3 of 4 members is no worse; greedy reaches it here."""
    members = MEMBERS[3:]
    node = Greedy(members=handles(4), rounds=3, start=1, bags=1, fraction=1.0)
    reached = score_split(node.combine(members, DATA, ids(4)), DATA, "dev")
    for task in TASKS:
        every = [metric(TASKS[task], np.mean([dev(members[i], task) for i in some], axis=0), labels_of(task))
                 for size in (1, 2, 3) for some in itertools.combinations_with_replacement(range(4), size)]
        assert max(every[:4]) - 1e-6 <= (reached[task] or 0) <= max(every) + 1e-6


def test_equal_gains_go_to_members_that_are_in() -> None:
    """All of 5 equal members are as good: the first stays alone, however many rounds."""
    node = Greedy(members=handles(5), rounds=10, start=1, bags=1, fraction=1.0)
    for weights in node.fit([MEMBERS[6]] * 5, DATA, ids(5)).values():
        assert weights == {ids(5)[0]: 1.0}


def test_bags_are_averaged_and_hold_their_share() -> None:
    node = Greedy(members=handles(7), bags=8, fraction=0.4, rounds=4)
    choice = node.fit(MEMBERS, DATA, ids(7))
    for weights in choice.values():
        assert sum(weights.values()) == pytest.approx(1)
    whole = Greedy(members=handles(7), bags=8, fraction=1.0, rounds=4)  # all bags are equal
    assert whole.fit(MEMBERS, DATA, ids(7)) == whole.model_copy(update={"bags": 1}).fit(MEMBERS, DATA, ids(7))
    assert whole.fit(MEMBERS, DATA, ids(7)) != choice
    chosen = node.chosen(choice, ids(7))
    assert {ids(7)[position] for position in chosen} == {name for weights in choice.values() for name in weights}
    weight = [sum(weights.get(ids(7)[p], 0) for weights in choice.values()) for p in chosen]
    assert weight == sorted(weight, reverse=True)


def test_metrics_are_the_metric_of_each() -> None:
    for task, meaning in TASKS.items():
        stacked = np.stack([*(dev(m, task) for m in MEMBERS), np.full_like(dev(MEMBERS[0], task), 0.1)])
        each = [round(metric(meaning, scores, labels_of(task)), DIGITS) for scores in stacked]
        assert metrics(meaning, stacked, labels_of(task)).tolist() == pytest.approx(each, abs=1e-12)


# --------------------------------------------------------------------------------------------------------------- stack

@pytest.mark.parametrize("penalty", [0.5, 100.0])
def test_stack_is_scikit_learn(penalty: float) -> None:
    made = Stack(members=handles(7), penalty=penalty).combine(MEMBERS, DATA, ids(7))
    for task, meaning in TASKS.items():
        x = {split: np.hstack([m.outputs[split][task].scores.astype(float) for m in MEMBERS])
             for split in ("dev", "test")}
        linear = (Ridge(alpha=penalty) if meaning.kind == "regression"
                  else LogisticRegression(C=1 / penalty, max_iter=5000, tol=1e-8))
        model = make_pipeline(StandardScaler(), linear).fit(x["dev"], labels_of(task))
        for split in ("dev", "test"):
            wanted = (model.predict(x[split]) if meaning.kind == "regression" else model.decision_function(x[split]))
            np.testing.assert_allclose(made.outputs[split][task].scores.squeeze(), wanted, atol=1e-3)


@pytest.mark.parametrize("classes", [[3], [1, 3], [0, 2, 4]])
def test_stack_where_dev_lacks_classes(classes: list[int]) -> None:
    """A class without an example is never said; the others are as scikit-learn has them."""
    labels = np.resize(classes, N).astype(float)
    splits = {"sentiment": {"dev": replace(DATA.splits["sentiment"]["dev"], labels=labels)}}
    data = Data({"sentiment": TASKS["sentiment"]}, splits)
    members = [Predictions({"dev": {"sentiment": m.outputs["dev"]["sentiment"]}}) for m in MEMBERS]
    shares = chances("sentiment", dev(Stack(members=handles(7)).combine(members, data, ids(7)), "sentiment"))
    absent = [c for c in range(5) if c not in classes]
    assert shares[:, absent].max() < 1e-8
    if len(classes) == 2:
        x = StandardScaler().fit_transform(np.hstack([dev(m, "sentiment") for m in members]))
        wanted = LogisticRegression(tol=1e-8, max_iter=10_000).fit(x, labels).predict_proba(x)
        np.testing.assert_allclose(shares[:, classes], wanted, atol=1e-4)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_stack_where_dev_has_one_answer_only(label: float) -> None:
    splits = {"paraphrase": {"dev": replace(DATA.splits["paraphrase"]["dev"], labels=np.full(N, label))}}
    data = Data({"paraphrase": TASKS["paraphrase"]}, splits)
    members = [Predictions({"dev": {"paraphrase": m.outputs["dev"]["paraphrase"]}}) for m in MEMBERS]
    made = Stack(members=handles(7)).combine(members, data, ids(7))
    assert (np.sign(dev(made, "paraphrase")) == (1 if label else -1)).all()


# --------------------------------------------------------------------------------------------------------------- route

def test_route_to_the_best_of_each_task_and_named_ones() -> None:
    named = skilled(99)
    node = Route(routes={"paraphrase": Member()}, members=handles(7))
    members, names = [named, *MEMBERS], ["named", *ids(7)]
    made, choice = node.combine(members, DATA, names), node.fit(members, DATA, names)
    for task in ("sentiment", "similarity"):
        best = max(MEMBERS, key=lambda m: score_split(m, DATA, "dev")[task] or 0)
        assert MEMBERS[ids(7).index(choice[task])] is best
        assert np.array_equal(dev(made, task), dev(best, task))
    assert np.array_equal(dev(made, "paraphrase"), dev(named, "paraphrase")) and "paraphrase" not in choice
    assert node.chosen(choice, names) == sorted({0, *(names.index(name) for name in choice.values())})
    assert Route(routes={"paraphrase": Member()}).chooses is False


def test_a_task_kind_with_two_classes_is_no_binary_task() -> None:
    """k = 2 logits go through every node."""
    task = Task(title="Two", kind="classification", classes=2)
    rng = np.random.default_rng(0)
    names = tuple(map(str, range(30)))
    data = Data({"two": task}, {"two": {"dev": Examples(names, names, labels=rng.integers(0, 2, 30).astype(float))}})
    members = [Predictions({"dev": {"two": Output(names, rng.standard_normal((30, 2)).astype(np.float32))}})
               for _ in range(7)]
    for node in NODES.values():
        node = Best(members=handles(7), by="two") if node.type == "best" else node
        assert node.combine(members, data, ids(7)).outputs["dev"]["two"].fault() == ""
