"""Ensembles against their definitions in plain Python, and what must not matter: order, names, test labels."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from members import TASKS, bits, handles, ids
from pydantic import ValidationError

from runner.errors import RegistryError, TrainingError
from runner.part import Member
from runner.parts.discovery import find, names
from runner.parts.ensembles import Ensemble
from runner.parts.ensembles.average import Average
from runner.parts.ensembles.best import Best
from runner.parts.ensembles.route import Route
from runner.tasks.data import Data, Examples
from runner.tasks.metrics import score, score_split
from runner.tasks.predictions import Output, Predictions

N = 30


def made_data(seed: int = 0) -> Data:
    """Return random labels for dev and test."""
    rng = np.random.default_rng(seed)
    splits = {task: {split: Examples(tuple(f"{split}{task}{i}" for i in range(N)), ("",) * N,
                                     labels=rng.integers(0, high, N).astype(np.float64)) for split in ("dev", "test")}
              for task, high in (("sentiment", 5), ("paraphrase", 2), ("similarity", 6))}
    return Data(TASKS, splits)


DATA = made_data()


def member(seed: int, tasks: Sequence[str] = tuple(TASKS), splits: Sequence[str] = ("dev", "test"),
           shuffled: bool = False) -> Predictions:
    """Return random predictions, in an order of rows of their own if they are `shuffled`."""
    rng = np.random.default_rng(seed)
    outputs: dict[str, dict[str, Output]] = {}
    for split, task in itertools.product(splits, tasks):
        ids = DATA.splits[task][split].ids
        rows = rng.permutation(N) if shuffled else range(N)
        scores = rng.standard_normal((N, TASKS[task].outputs)).astype(np.float32)
        outputs.setdefault(split, {})[task] = Output(tuple(ids[i] for i in rows), scores)
    return Predictions(outputs)


def by_id(predictions: Predictions, split: str, task: str) -> dict[str, list[float]]:
    """Return the scores of each example."""
    output = predictions.outputs[split][task]
    return dict(zip(output.ids, output.scores.tolist(), strict=True))


def chosen(node: Ensemble, members: Sequence[Predictions], data: Data, ids: Sequence[str]) -> list[int]:
    """Return the positions of the members that a node chooses."""
    found = node.chosen(node.fit(members, data, ids), ids)
    assert found is not None
    return found


# ----------------------------------------------------------------------------------------------------------- average

def test_average_is_the_mean_of_each_logit_whatever_the_order_of_rows() -> None:
    members = [member(seed, shuffled=seed > 0) for seed in range(4)]
    made = Average(members=handles(4)).combine(members, DATA, ids(4))
    for split, task in itertools.product(("dev", "test"), TASKS):
        tables = [by_id(m, split, task) for m in members]
        assert made.outputs[split][task].ids == DATA.splits[task][split].ids
        for name, row in by_id(made, split, task).items():
            exact = [Fraction(sum(Fraction(t[name][k]) for t in tables), 4) for k in range(TASKS[task].outputs)]
            assert row == [float(np.float32(float(value))) for value in exact]


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 9), st.just(3), st.just(1)),
                  elements=st.floats(width=32, allow_nan=False, allow_infinity=False)), st.randoms())
def test_average_depends_on_no_order_and_no_name(values: np.ndarray, random: object) -> None:
    names_ = ("a", "b", "c")
    data = Data({"similarity": TASKS["similarity"]}, {"similarity": {"dev": Examples(names_, names_)}})
    members = [Predictions({"dev": {"similarity": Output(names_, scores)}}) for scores in values]
    turned = list(members)
    random.shuffle(turned)  # type: ignore[attr-defined]
    node = Average(members=handles(len(members)))
    first = node.combine(members, data, ids(len(members)))
    second = node.combine(turned, data, [f"other{i}" for i in range(len(members))])
    assert first.outputs["dev"]["similarity"].scores.dtype == np.float32
    assert bits(first) == bits(second)


def test_average_depends_on_no_order_even_where_float64_rounds() -> None:
    """2^100 + 1 - 2^100 is 1 or 0, by the order of the sum."""
    data = Data({"similarity": TASKS["similarity"]}, {"similarity": {"dev": Examples(("a",), ("",))}})
    members = [Predictions({"dev": {"similarity": Output(("a",), np.array([[value]], np.float32))}})
               for value in (2.0**100, 1.0, -(2.0**100))]
    node = Average(members=handles(3))
    assert len({bits(node.combine(order, data, ids(3))) for order in itertools.permutations(members)}) == 1


def test_average_is_over_the_members_that_have_the_task() -> None:
    one, two, three = member(1, ["sentiment"]), member(2, ["sentiment", "paraphrase"]), member(3, ["paraphrase"])
    made = Average(members=handles(3)).combine([one, two, three], DATA, ids(3))
    both = Average(members=handles(2))
    assert set(made.outputs["dev"]) == {"sentiment", "paraphrase"}
    for task, pair in (("sentiment", [one, two]), ("paraphrase", [two, three])):
        alone = both.combine(pair, DATA, ids(2)).outputs["test"][task]
        assert np.array_equal(made.outputs["test"][task].scores, alone.scores)


def test_average_is_one_system_on_every_split() -> None:
    """A member without test predictions may not be dropped from test alone."""
    made = Average(members=handles(2)).combine([member(1), member(2, splits=["dev"])], DATA, ids(2))
    assert set(made.outputs) == {"dev"}


def test_average_of_one_is_that_one_and_of_the_same_one_twice_too() -> None:
    alone = member(5)
    assert bits(Average(members=handles(1)).combine([alone], DATA, ids(1))) == bits(alone)
    assert bits(Average(members=handles(2)).combine([alone, alone], DATA, ["a", "a"])) == bits(alone)


def test_nested_averages_are_averages_of_averages() -> None:
    a, b, c = (member(seed) for seed in range(3))
    pair = Average(members=handles(2))
    made = by_id(pair.combine([pair.combine([a, b], DATA, ids(2)), c], DATA, ids(2)), "dev", "similarity")
    tables = [by_id(m, "dev", "similarity") for m in (a, b, c)]
    for name, (value,) in made.items():
        x, y, z = (t[name][0] for t in tables)
        assert value == pytest.approx(((x + y) / 2 + z) / 2, abs=1e-6)


def test_an_average_of_nothing_is_an_error() -> None:
    with pytest.raises(ValidationError, match="members"):
        Average(members=())
    with pytest.raises(TrainingError, match="nothing to combine"):
        Average(members=handles(2)).combine([Predictions({}), Predictions({})], DATA, ids(2))


def test_members_of_other_examples_are_refused_by_id() -> None:
    short = Predictions({"dev": {"similarity": Output(("x",), np.zeros((1, 1), np.float32))}})
    with pytest.raises(RegistryError, match="of 000000000001 for `similarity` on dev"):
        Average(members=handles(2)).combine([member(1), short], DATA, ids(2))


def test_the_members_are_not_changed() -> None:
    members = [member(seed, shuffled=True) for seed in range(3)]
    before = [bits(m) for m in members]
    for node in (Average(members=handles(3)), Best(members=handles(3), count=2)):
        node.combine(members, DATA, ids(3))
    assert [bits(m) for m in members] == before


# ------------------------------------------------------------------------------------------------------------- route

def test_route_takes_each_task_from_its_member() -> None:
    members = {"sentiment": member(1), "similarity": member(2, shuffled=True)}
    node = Route(routes=dict.fromkeys(members, Member()))
    made = node.combine([members[task] for task in node.roles()], DATA, ids(2))
    assert {split: set(by_task) for split, by_task in made.outputs.items()} == {
        "dev": set(members), "test": set(members)}
    for split, task in itertools.product(("dev", "test"), members):
        assert by_id(made, split, task) == by_id(members[task], split, task)


def test_route_needs_the_task_in_the_member_and_in_the_suite() -> None:
    with pytest.raises(TrainingError, match="nothing to route for `paraphrase`: 000000000000 does not predict it"):
        Route(routes={"paraphrase": Member()}).combine([member(1, ["sentiment"])], DATA, ids(1))
    with pytest.raises(TrainingError, match="nothing to route for `toxicity`"):
        Route(routes={"toxicity": Member()}).combine([member(1)], DATA, ids(1))
    with pytest.raises(ValidationError, match="routes"):
        Route(routes={})


# -------------------------------------------------------------------------------------------------------------- best

@pytest.mark.parametrize("by", ["overall", *TASKS])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_best_chooses_by_the_dev_score(by: str, count: int) -> None:
    members = [member(seed) for seed in range(8)]
    node = Best(members=handles(8), by=by, count=count)
    ranking = sorted(range(8), key=lambda i: (-(score(members[i], DATA)["dev"][by] or 0), ids(8)[i]))
    assert chosen(node, members, DATA, ids(8)) == ranking[:count]
    expected = Average(members=handles(count)).combine([members[i] for i in ranking[:count]], DATA, ids(count))
    assert bits(node.combine(members, DATA, ids(8))) == bits(expected)


def times(factor: float, of: Predictions) -> Predictions:
    return Predictions({split: {task: Output(o.ids, o.scores * np.float32(factor)) for task, o in by_task.items()}
                        for split, by_task in of.outputs.items()})


def test_equal_scores_go_to_the_smaller_id_in_any_order() -> None:
    """Doubled logits score the same; negated ones do not."""
    base = member(3)
    named = {"b": base, "a": times(2, base), "c": times(-1, base)}
    assert score(base, DATA) == score(named["a"], DATA) != score(named["c"], DATA)
    node = Best(members=handles(3), by="similarity")
    better = "a" if (score(base, DATA)["dev"]["similarity"] or 0) > 0 else "c"
    for order in itertools.permutations(named):
        assert [order[i] for i in chosen(node, [named[k] for k in order], DATA, order)] == [better]
    two = Best(members=handles(2), by="sentiment")
    for pair in (("a", "b"), ("b", "a")):
        assert [pair[i] for i in chosen(two, [named[k] for k in pair], DATA, pair)] == ["a"]


def test_a_run_that_is_named_twice_is_one_candidate() -> None:
    members = [member(4), member(5), member(4)]
    named = ("a", "b", "a")
    assert sorted(named[i] for i in chosen(Best(members=handles(3), count=2), members, DATA, named)) == ["a", "b"]
    with pytest.raises(TrainingError, match="2 of 2 members"):
        chosen(Best(members=handles(3), count=3), members, DATA, named)


def test_members_without_the_score_are_passed_over() -> None:
    members = [member(0, ["sentiment", "paraphrase"]), member(1), member(2, ["similarity"])]
    assert chosen(Best(members=handles(3)), members, DATA, ids(3)) == [1]
    assert set(chosen(Best(members=handles(3), by="paraphrase", count=2), members, DATA, ids(3))) == {0, 1}
    with pytest.raises(TrainingError, match="best 2 by `overall`: 1 of 3 members have this score"):
        Best(members=handles(3), count=2).combine(members, DATA, ids(3))
    with pytest.raises(TrainingError, match="0 of 1 members"):
        Best(members=handles(1), by="similarity").combine(members[:1], DATA, ids(1))


def test_best_of_an_unknown_task_hints_at_the_nearest() -> None:
    with pytest.raises(TrainingError) as caught:
        Best(members=handles(1), by="sentimnt").combine([member(1)], DATA, ids(1))
    assert "did you mean `sentiment`?" in caught.value.render()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["overall", *TASKS]), st.integers(1, 3))
def test_choosing_never_looks_at_test(seed: int, by: str, count: int) -> None:
    """Other test labels, or none, or other test predictions: the same members are chosen."""
    rng = np.random.default_rng(seed)
    members = [member(int(s)) for s in rng.integers(0, 2**32, 5)]
    node = Best(members=handles(5), by=by, count=count)
    first, made = chosen(node, members, DATA, ids(5)), bits(node.combine(members, DATA, ids(5)))
    for labels in ("permuted", "none"):
        splits = {task: {**by_split, "test": replace(by_split["test"], labels=None if labels == "none" else
                                                     rng.permutation(by_split["test"].labels))}
                  for task, by_split in DATA.splits.items()}
        other = Data(TASKS, splits)
        assert chosen(node, members, other, ids(5)) == first
        assert bits(node.combine(members, other, ids(5))) == made
    swapped = [Predictions({"dev": m.outputs["dev"], "test": n.outputs["test"]})
               for m, n in zip(members, reversed(members), strict=True)]
    assert chosen(node, swapped, DATA, ids(5)) == first


def test_choosing_does_look_at_dev() -> None:
    members = [member(seed) for seed in range(5)]
    node = Best(members=handles(5))
    assert len({tuple(chosen(node, members, made_data(seed), ids(5))) for seed in range(20)}) > 1


# ------------------------------------------------------------------------------------------- what a spec room relies on

def test_the_family_holds_these_nodes() -> None:
    assert {"average", "best", "route"} <= set(names(Ensemble))
    for cls in (Average, Best, Route):
        assert find(Ensemble, cls.type) is cls


def test_children_are_found_in_any_field_that_holds_members(tmp_path: Path) -> None:
    folder = tmp_path / "parts" / "ensembles"
    folder.mkdir(parents=True)
    (folder / "mixed.py").write_text('''
"""A node with members in two fields."""
from __future__ import annotations
from runner.parts import Ensemble
from runner.parts import Member

class Mixed(Ensemble):
    """Keyed and listed members."""
    type = "mixed"
    keyed: dict[str, Member]
    weight: float = 0.5
    listed: tuple[Member, ...] = ()

    def apply(self, choice, members, data, ids):
        """Return the first."""
        return members[0]
''')
    a, b, c = handles(3)
    mixed = find(Ensemble, "mixed", tmp_path)
    assert mixed is not None
    node = mixed(keyed={"y": a, "x": b}, listed=(c,))  # type: ignore[call-arg]
    assert [m is n for m, n in zip(node.children(), (b, a, c), strict=True)] == [True] * 3
    assert node.roles() == ("x", "y", "")
    assert node.canonical() == {"type": "mixed", "version": 1, "weight": 0.5}
    assert node.signature(["1", "2", "3"]) == [["keyed", "x", "1"], ["keyed", "y", "2"], ["listed", "", "3"]]
    assert node.fit([], DATA, []) == {} and node.chosen({}, []) is None
    assert node.summary() == "mixed of 3"


def test_an_id_holds_the_rule_and_where_it_matters_the_order() -> None:
    average, best = Average(members=handles(2)), Best(members=handles(2), by="sentiment", count=2)
    assert average.canonical() == {"type": "average", "version": 1}
    assert best.canonical() == {"type": "best", "version": 1, "by": "sentiment", "count": 2}
    for node in (average, best):
        assert node.signature(["1", "2"]) == node.signature(["2", "1"]) != node.signature(["1", "1"])
    a, b = handles(2)
    one, two = Route(routes={"sentiment": a, "similarity": b}), Route(routes={"similarity": b, "sentiment": a})
    assert one.children() == two.children() == (a, b)
    assert one.roles() == two.roles() == ("sentiment", "similarity")
    assert one.signature(["1", "2"]) == two.signature(["1", "2"]) != one.signature(["2", "1"])
    with pytest.raises(ValueError, match="zip"):
        one.signature(["1"])


def test_nodes_say_what_they_are_and_which_tasks_they_name() -> None:
    assert Average(members=handles(3)).summary() == "average of 3"
    assert Best(members=handles(7)).summary() == "best of 7 by overall"
    assert Best(members=handles(7), by="similarity", count=2).summary() == "best 2 of 7 by similarity"
    assert Average(members=handles(1)).names_tasks() == Best(members=handles(1)).names_tasks() == {}
    assert Best(members=handles(1), by="x").names_tasks() == {"by": "x"}
    assert Route(routes={"x": Member()}).names_tasks() == {"routes.x": "x"}


@pytest.mark.parametrize("fields", [{"count": 0}, {"count": "2"}, {"by": 3}, {"rule": "x"}])
def test_wrong_fields_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Best(members=handles(1), **fields)  # type: ignore[arg-type]


def test_scoring_a_combination_needs_neither_torch_nor_pandas() -> None:
    code = ("import sys, runner.results.rows; from runner.parts.ensembles import average, best, route\n"
            "print(sorted({'torch', 'pandas', 'tabulate', 'scipy', 'sklearn'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_score_split_is_what_best_ranks_by() -> None:
    made = member(1)
    assert score(made, DATA) == {split: score_split(made, DATA, split) for split in ("dev", "test")}
