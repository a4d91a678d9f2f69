"""What members are worth: Shapley's axioms, orders played out one by one, trees made smaller by hand."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from filed import average, made, planned, said, suited
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from runner.cli.app import cli
from runner.errors import UsageError
from runner.results.members import shapley as worth
from runner.results.members.agreement import agreement
from runner.results.members.shapley import contributions
from runner.results.members.subtrees import EnsembleSubsets, subsets_of
from runner.tasks.data import Task
from runner.tasks.metrics import score_split
from runner.tasks.predictions import Output, Predictions

INNER = '{ type = "average", members = ["a.safetensors", "b.safetensors", "c.safetensors"] }'
NESTED = f'type = "average"\nmembers = ["a.safetensors", {INNER}, "r.toml"]'
ROUTE = 'type = "route"\n[tree.routes]\nsentiment = "d.safetensors"\nsimilarity = "c.safetensors"'
BEST = 'type = "best"\ncount = 2\nmembers = ["a.safetensors", "b.safetensors", "c.safetensors"]'


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project of four models and some trees of them."""
    folder = tmp_path_factory.mktemp("worth")
    data = suited(folder)
    models = {name: said(data, skill, seed) for seed, (name, skill) in
              enumerate({"a": 1.0, "b": 1.4, "c": 0.6, "d": 0.9}.items())}
    models["copy"] = Predictions({split: {task: Output(o.ids, o.scores + np.float32(0)) for task, o in tasks.items()}
                                  for split, tasks in models["a"].outputs.items()})
    models |= {f"m{i}": said(data, 0.7, 20 + i) for i in range(14)}
    return made(folder, models, flat=average("a", "b", "c"), nested=NESTED, r=ROUTE, best=BEST,
                again=average("a", "b", "c", "a"), twins=average("a", "m1", "b"), solo=average("a"),
                many=average(*(f"m{i}" for i in range(14))))


def subsets(root: Path, spec: str, split: str = "dev") -> EnsembleSubsets:
    return subsets_of(planned(root, spec), split)


def mean(subsets: EnsembleSubsets, names: str) -> dict[str, dict[str, np.ndarray]]:
    """Return the mean of some models' scores, added up here."""
    by_name = {player.name: subsets.leaves[player.id] for player in subsets.players}
    tasks = subsets.data.tasks
    return {split: {task: np.mean([by_name[n].outputs[split][task].scores.astype(float) for n in names], axis=0)
                    for task in tasks} for split in ("dev",)}


def bits(subsets: EnsembleSubsets, names: str) -> int:
    return sum(1 << i for i, player in enumerate(subsets.players) if player.name in names)


# ---------------------------------------------------------------------------------------------------------- the axioms

Games = st.integers(1, 5).flatmap(lambda n: hnp.arrays(np.float64, 1 << n, elements=st.floats(-1, 1, width=32)))


def shapley(values: np.ndarray) -> np.ndarray:
    masks, weights = worth.exact_weights(int(math.log2(len(values))))
    assert masks == list(range(len(values)))
    return np.asarray(weights @ values)


@given(Games)
def test_shapley_values_are_the_mean_gains_over_all_orders(values: np.ndarray) -> None:
    n = int(math.log2(len(values)))
    total = np.zeros(n)
    for order in itertools.permutations(range(n)):
        mask = 0
        for player in order:
            total[player] += values[mask | 1 << player] - values[mask]
            mask |= 1 << player
    assert shapley(values) == pytest.approx(total / math.factorial(n), abs=1e-9)


@given(Games)
def test_efficiency(values: np.ndarray) -> None:
    assert shapley(values).sum() == pytest.approx(values[-1] - values[0], abs=1e-9)


@given(Games, st.data())
def test_symmetry(values: np.ndarray, drawn: st.DataObject) -> None:
    n = int(math.log2(len(values)))
    i, j = (drawn.draw(st.integers(0, n - 1)) for _ in "ij")
    swapped = [sum(1 << {i: j, j: i}.get(k, k) for k in range(n) if mask >> k & 1) for mask in range(1 << n)]
    found = shapley((values + values[swapped]) / 2)
    assert found[i] == pytest.approx(found[j], abs=1e-9)


@given(Games, st.data())
def test_a_null_player_is_worth_nothing(values: np.ndarray, drawn: st.DataObject) -> None:
    n = int(math.log2(len(values)))
    i = drawn.draw(st.integers(0, n - 1))
    assert shapley(values[[mask & ~(1 << i) for mask in range(1 << n)]])[i] == pytest.approx(0, abs=1e-9)


@given(Games, st.floats(-3, 3))
def test_linearity(values: np.ndarray, factor: float) -> None:
    other = np.sin(np.arange(len(values)))
    assert shapley(values + factor * other) == pytest.approx(shapley(values) + factor * shapley(other), abs=1e-8)


def test_sampled_orders_are_the_same_each_time_and_have_each_player_as_often_at_each_place() -> None:
    orders = worth.drawn_orders(14, "key")
    assert (orders == worth.drawn_orders(14, "key")).all() and (orders != worth.drawn_orders(14, "other")).any()
    assert (np.sort(orders, axis=2) == np.arange(14)).all()
    for place in range(14):
        assert (np.sort(orders[0, :, place]) == np.repeat(range(14), 2)).all()
    assert np.prod(worth.drawn_orders(100, "key").shape) < 10_000


def test_gains_on_sampled_orders_add_up_and_come_near_the_exact_values() -> None:
    strength = np.random.default_rng(1).random(10)
    sizes = [strength[[bool(mask >> i & 1) for i in range(10)]].sum() for mask in range(1 << 10)]
    values = np.sqrt(np.array(sizes))
    masks, before, after = worth.joined(worth.drawn_orders(10, "key").reshape(-1, 10))
    found = worth.mean_weights(before, after, len(masks)) @ values[masks]
    assert found == pytest.approx(shapley(values), abs=0.003)
    assert found.sum() == pytest.approx(values[-1] - values[0])


# ---------------------------------------------------------------------------------------------------------- coalitions

def test_a_coalition_is_the_tree_without_the_other_models(root: Path) -> None:
    found = subsets(root, "flat")
    for names in ("a", "bc", "abc"):
        predictions = found.predictions(bits(found, names))
        assert predictions
        for task, scores in mean(found, names)["dev"].items():
            assert predictions.outputs["dev"][task].scores == pytest.approx(scores, abs=1e-6)
    assert found.predictions(0) is None


def test_inner_nodes_shrink_and_vanish_and_a_model_goes_wherever_it_stands(root: Path) -> None:
    found = subsets(root, "nested")
    assert [player.name for player in found.players] == ["a", "b", "c", "d"]
    whole = found.predictions(found.whole)
    assert whole and whole.to_bytes() == found.plan.nodes[found.root.id].spec.ensemble.combine(  # type: ignore[union-attr]
        [found.leaves[found.players[0].id], found._of(found.plan.nodes[found.root.members[1]], found.whole),
         found._of(found.plan.nodes[found.root.members[2]], found.whole)], found.data, found.root.members).to_bytes()
    only = found.predictions(bits(found, "bd"))
    assert only
    task = {name: mean(found, names)["dev"] for name, names in (("b", "b"), ("d", "d"))}
    assert only.outputs["dev"]["sentiment"].scores == pytest.approx(
        (task["b"]["sentiment"] + task["d"]["sentiment"]) / 2, abs=1e-6), "the route says sentiment alone"
    assert only.outputs["dev"]["similarity"].scores == pytest.approx(task["b"]["similarity"], abs=1e-6)
    titles = [title for _, _, title in found.tree(bits(found, "bd"))]
    assert titles == ["nested", "average of 3", "b", "r", "d"]


def test_a_rule_chooses_among_those_that_are_left(root: Path) -> None:
    found = subsets(root, "best")
    alone = found.predictions(bits(found, "c"))
    assert alone and (alone.outputs["dev"]["sentiment"].scores == found.leaves[found.players[2].id].outputs["dev"][
        "sentiment"].scores).all()


def test_without_a_task_the_most_frequent_label_is_said(root: Path) -> None:
    found = subsets(root, "r")
    values, _ = worth.points(found, [0, found.whole])
    for name, task in found.data.tasks.items():
        labels = found.labels(name)
        counts = np.unique(labels, return_counts=True)[1]
        assert values[name][0] == (0 if task.kind == "regression" else counts.max() / len(labels))
    assert values["paraphrase"][1] == values["paraphrase"][0], "the route has no such task"


def test_values_of_the_whole_are_its_scores(root: Path) -> None:
    found = subsets(root, "nested", "test")
    whole = found.predictions(found.whole)
    assert whole
    expected = score_split(whole, found.data, "test")
    values, _ = worth.points(found, [found.whole])
    assert {name: float(value[0]) for name, value in values.items()} == pytest.approx(expected, abs=1e-6)


def test_what_cannot_be_appraised_is_said(root: Path) -> None:
    with pytest.raises(UsageError, match="no ensemble"):
        plan = planned(root, "flat")
        EnsembleSubsets(plan, plan.nodes[plan.nodes[plan.roots["flat"]].members[0]], "dev")
    with pytest.raises(UsageError, match="several systems: flat, nested"):
        subsets_of(planned(root, "flat", "nested"), "dev")
    made(root, {}, untrained=average("sum.toml"))
    with pytest.raises(UsageError, match="not trained yet: sum; `mtrun build`"):
        subsets(root, "untrained")


# --------------------------------------------------------------------------------------------------------------- worth

def test_the_worth_of_members_adds_up_and_its_parts_agree(root: Path) -> None:
    found = contributions(subsets(root, "nested"))
    assert found.is_exact and found.coalitions == 16 and found.sampling_error == 0
    assert sum(w.shapley.value for w in found.members) == pytest.approx(found.whole.value - found.nothing)
    tasks = found.subsets.data.tasks
    for w in found.members:
        shares = [gain / 2 if tasks[name].kind == "regression" else gain for name, gain in w.by_task.items()]
        assert w.shapley.value == pytest.approx(sum(shares) / len(shares))
        assert w.shapley.low <= w.shapley.value <= w.shapley.high
    values, _ = worth.points(found.subsets, [found.subsets.whole, found.subsets.whole ^ 2])
    assert found.members[1].left_out.value == pytest.approx(values["overall"][0] - values["overall"][1])


def test_an_interval_is_that_of_the_resampled_trees(root: Path) -> None:
    """Draw the examples, score whole and rest on them, take the difference: the same as weights on resamples."""
    from runner.tasks import bootstrap
    from runner.tasks.metrics import leading

    found = contributions(subsets(root, "flat"))
    data, differences = found.subsets.data, np.zeros(worth.RESAMPLES)
    for name, task in data.tasks.items():
        labels = found.subsets.labels(name)
        seed = bootstrap.seed(found.subsets.root.suite, "dev", name)
        columns = found.subsets.outcomes([found.subsets.whole, found.subsets.whole ^ 1])[name]
        draws = bootstrap.resampled(task, leading(task), columns, labels, seed, worth.RESAMPLES)
        differences += (draws[:, 0] - draws[:, 1]) / (2 if task.kind == "regression" else 1) / 3
    ends = np.quantile(differences, [0.025, 0.975])
    assert (found.members[0].left_out.low, found.members[0].left_out.high) == pytest.approx(ends, abs=1e-9)


def test_a_model_that_is_there_twice_is_worth_nothing_the_second_time_and_goes_first(root: Path) -> None:
    found = contributions(subsets(root, "again"), must_shrink=True)
    assert [w.player.title for w in found.members] == ["a", "b", "c", "a (again)"]
    first, again = found.members[0], found.members[3]
    assert first.shapley.value == pytest.approx(again.shapley.value)
    others = [w.left_out.value for w in found.members[1:3]]
    assert again.left_out.value <= 0.02 and again.left_out.value < max(others)
    assert found.subsets.models(found.subsets.whole ^ 8) == found.subsets.models(found.subsets.whole)
    by_rule = found.subsets.predictions(found.subsets.whole ^ 8)
    flat = subsets(root, "flat")
    whole = flat.predictions(flat.whole)
    assert by_rule and whole and by_rule.to_bytes() == whole.to_bytes()


def test_a_copy_under_another_id_goes_first(root: Path) -> None:
    data = subsets(root, "flat").data
    one = said(data, 1.0, 0)
    noisy = Predictions({split: {task: Output(o.ids, o.scores * np.float32(1 + 1e-6)) for task, o in tasks.items()}
                         for split, tasks in one.outputs.items()})
    made(root, {"twin": noisy}, copied=BEST.replace("count = 2\n", "").replace("b.", "twin."))
    found = contributions(subsets(root, "copied"), must_shrink=True)
    by_name = {w.player.name: w for w in found.members}
    assert [by_name[name].left_out.value for name in ("a", "twin")] == pytest.approx([0, 0], abs=1e-6)
    step = found.smallest(0.1)
    assert step.coalition.bit_count() == 1 and step.score == pytest.approx(found.whole.value)


@pytest.mark.parametrize("points", [0.0, 0.5, 3.0, 100.0])
def test_the_smallest_tree_is_that_of_trying_all(root: Path, points: float) -> None:
    found = contributions(subsets(root, "nested"), must_shrink=True)
    values = worth.points(found.subsets, range(1, 16))[0]["overall"]
    good = [(mask.bit_count(), -value) for mask, value in zip(range(1, 16), values, strict=True)
            if value >= found.whole.value - points / 100 - 1e-9]
    step = found.smallest(points)
    assert (step.coalition.bit_count(), -step.score) == pytest.approx(min(good))
    assert [s.coalition.bit_count() for s in found.steps] == [4, 3, 2, 1]


def test_many_members_are_sampled(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worth, "COALITIONS", 400)
    found = contributions(subsets(root, "many"), must_shrink=True)
    assert not found.is_exact and 0 < found.sampling_error < 0.02
    assert sum(w.shapley.value for w in found.members) == pytest.approx(found.whole.value - found.nothing)
    assert [s.coalition.bit_count() for s in found.steps] == list(range(14, 0, -1))
    for above, below in itertools.pairwise(found.steps):
        assert above.coalition & below.coalition == below.coalition
    assert found.smallest(0.1).score >= found.whole.value - 0.001


def test_one_member_is_worth_all(root: Path) -> None:
    found = contributions(subsets(root, "solo"), must_shrink=True)
    (only,) = found.members
    assert only.shapley.value == pytest.approx(found.whole.value - found.nothing) and not found.agreements
    assert only.left_out.value == pytest.approx(only.shapley.value) and len(found.steps) == 1


# --------------------------------------------------------------------------------------------------------------- pairs

def test_disagreement_and_errors_are_those_of_their_definitions() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 200).astype(np.float64)
    one, other = (rng.standard_normal((200, 5)) + 2 * np.eye(5)[labels.astype(int)] for _ in range(2))
    apart, errors = agreement(Task(title="", kind="classification", classes=5), one, other, labels)
    said_ = one.argmax(axis=1), other.argmax(axis=1)
    assert apart == np.mean(said_[0] != said_[1])
    assert errors == pytest.approx(stats.pearsonr(*(s != labels for s in said_)).statistic)
    x, y = (labels + rng.standard_normal(200) for _ in range(2))
    apart, errors = agreement(Task(title="", kind="regression"), x[:, None], y[:, None], labels)
    assert apart == pytest.approx((1 - stats.pearsonr(x, y).statistic) / 2)
    left = [stats.zscore(s) - stats.zscore(labels) for s in (x, y)]
    assert errors == pytest.approx(stats.pearsonr(*left).statistic)


def test_a_model_and_its_equal_never_disagree(root: Path) -> None:
    scores = np.arange(6.0)[:, None]
    labels = np.array([0.0, 1, 1, 0, 1, 0])
    assert agreement(Task(title="", kind="binary"), scores - 3, scores - 3, labels) == (0, pytest.approx(1))
    assert agreement(Task(title="", kind="binary"), scores + 1, scores + 2, np.ones(6)) == (0, 0), "nothing is wrong"


# ------------------------------------------------------------------------------------------------------------- command

def test_the_command_tells_people_and_programs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    shown = CliRunner().invoke(cli, ["members", "specs/nested.toml", "--prune", "0.5"], catch_exceptions=False).output
    assert "Shapley value" in shown and "all 16 coalitions" in shown and "The smallest within 0.5 points has" in shown
    assert max(map(len, shown.splitlines())) <= 115
    (line,) = CliRunner().invoke(cli, ["members", "specs/nested.toml", "--prune", "0.5", "--json"]).output.splitlines()
    found = json.loads(line)
    assert found["v"] == 1 and found["exact"] and [m["name"] for m in found["members"]] == ["a", "b", "c", "d"]
    assert len(found["pairs"]) == 6 and found["smallest"]["points"] == 0.5
    values = [member["shapley"]["value"] for member in found["members"]]
    assert sum(values) == pytest.approx(found["overall"]["value"] - found["nothing"])
    plain = CliRunner().invoke(cli, ["members", "specs/nested.toml", "--split", "test"]).output
    assert "test overall" in plain and "may have been chosen" not in plain and "smallest" not in plain


def test_neither_torch_nor_a_run_is_needed(root: Path) -> None:
    import subprocess
    import sys

    code = ("import sys; from runner.cli import cli; cli.main(['members', 'specs/flat.toml'], standalone_mode=False); "
            "print('torch' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.stdout.endswith("False\n"), done.stderr
