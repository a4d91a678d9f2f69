"""Soups: means of weights, the greedy recipe against its definition, what a plan makes of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from builds import BROKEN, built, names
from hypothesis import given
from hypothesis import strategies as st
from projects import project
from safetensors.torch import load

from runner.errors import SpecError, TrainingError
from runner.plan.plan import Plan
from runner.plan.planner import make_plan
from runner.registry.registry import Registry, Run
from runner.specs.spec import Leaf
from runner.tasks.folds import refits
from runner.tasks.metrics import score_split
from runner.tasks.predictions import split_epochs
from runner.training import stored_model
from runner.training.soup import Members, SoupTrainer, greedy
from runner.worker.worker import trainer_of

RATES = 'kind = "model"\nextends = "sum.toml"\n[sweep]\n"optimizer.lr_scale" = [0.5, 2.0, 6.0]\n'
SEEDS = 'kind = "model"\nextends = "sum.toml"\n[sweep]\n"train.seed" = [1, 2]\n'
UNIFORM = 'kind = "soup"\nmembers = ["rates.toml"]\n'
GREEDY = 'kind = "soup"\nrecipe = "greedy"\nmembers = ["rates.toml"]\n'
AGAIN = 'kind = "soup"\nmembers = ["six.toml", "rates.toml", "six.toml"]\n'
SIX = 'kind = "model"\nextends = "sum.toml"\n[optimizer]\nlr_scale = 6.0\n'
APART = 'kind = "soup"\nmembers = ["seeds.toml"]\n'
FAILING = 'kind = "soup"\nmembers = ["sum.toml", "broken.toml"]\n'
BOTH = 'kind = "ensemble"\n[tree]\ntype = "average"\nmembers = ["uniform.toml", "greedy.toml"]\n'
SPECS = {"rates": RATES, "seeds": SEEDS, "uniform": UNIFORM, "greedy": GREEDY, "again": AGAIN, "six": SIX,
         "apart": APART, "failing": FAILING, "broken": BROKEN, "both": BOTH}


def planned(root: Path, *specs: str, settings: Sequence[str] = ()) -> Plan:
    return make_plan(root, [root / "specs" / f"{spec}.toml" for spec in specs], "demo", settings)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose soups are built."""
    root = project(tmp_path_factory.mktemp("soups"), **SPECS)
    events = built(root, "both")
    assert names(events, "trained")[-2:] == ["uniform", "greedy"], "members come first"
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoilt."""
    return Path(shutil.copytree(made, tmp_path / "copy"))


def run(root: Path, name: str) -> Run:
    return next(run for run in Registry(root / "registry").runs() if run.manifest["name"] == name)


def members(root: Path) -> list[Run]:
    return [run for run in Registry(root / "registry").runs() if run.manifest["name"].startswith("rates")]


def test_a_uniform_soup_is_the_mean_of_the_weights(made: Path) -> None:
    weights = [load(member.read("model.safetensors")) for member in members(made)]
    soup = load(run(made, "uniform").read("model.safetensors"))
    assert soup.keys() == weights[0].keys() and len(weights) == 3
    for name, tensor in soup.items():
        mean = np.mean([one[name].numpy().astype(np.float64) for one in weights], axis=0)
        np.testing.assert_allclose(tensor.numpy(), mean, rtol=1e-6, atol=1e-9)
    assert run(made, "uniform").manifest["parameters"] == members(made)[0].manifest["parameters"]


def test_its_predictions_are_those_of_its_weights(made: Path) -> None:
    souper = kitchen(made, "uniform")
    souper.network.load_state_dict(load(run(made, "uniform").read("model.safetensors")))
    assert souper.all(souper.network).to_bytes() == run(made, "uniform").read("predictions.safetensors")


def kitchen(root: Path, name: str) -> SoupTrainer:
    """Return what makes a soup."""
    plan = planned(root, name)
    node = plan.nodes[plan.roots[name]]
    assert isinstance(node.spec, Leaf)
    made = trainer_of(node.spec.model, plan.data[node.suite], root, plan.registry.cache)
    assert isinstance(made, SoupTrainer)
    return made


def defined(ids: Sequence[str], reached: dict[Members, float]) -> list[str]:
    """Recipe 1 of the paper, word by word: sorted by held-out accuracy, added where it does not fall."""
    ingredients: list[str] = []
    for id in sorted(sorted(ids), key=lambda id: reached[frozenset([id])], reverse=True):
        if not ingredients or reached[frozenset([*ingredients, id])] >= reached[frozenset(ingredients)]:
            ingredients.append(id)
    return ingredients


def subsets(ids: Sequence[str]) -> Iterator[Members]:
    for size in range(1, len(ids) + 1):
        yield from map(frozenset, combinations(ids, size))


@given(st.data())
def test_greedy_is_what_the_paper_defines(data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=5, unique=True))
    reached = {subset: data.draw(st.sampled_from([0.1, 0.2, 0.3, 0.4])) for subset in subsets(ids)}
    tried = greedy(ids, reached.__getitem__)
    assert [soup for soup, kept in tried if kept][-1] == frozenset(defined(ids, reached))
    assert len(tried) == len(ids) and tried[0][1]
    assert greedy(ids[::-1], reached.__getitem__) == tried, "the order of members means nothing"


def test_a_greedy_soup_and_its_refits_are_those_of_all_means(made: Path) -> None:
    """Every mean of members is evaluated here; the run kept the right ones, for all of dev and for each refit."""
    souper, soup = kitchen(made, "greedy"), run(made, "greedy")
    ids, data = [member.id for member in members(made)], souper.data
    said = {}
    for subset in subsets(ids):
        weights = [load(member.read("model.safetensors")) for member in members(made) if member.id in subset]
        mean = {name: torch.stack([one[name].double() for one in weights]).mean(0).float() for name in weights[0]}
        souper.network.load_state_dict(mean)
        said[subset] = souper.dev(souper.network)

    def overall(subset: Members) -> float:
        return score_split(said[subset], data, "dev")["overall"] or 0.0

    chosen = frozenset(defined(ids, {subset: overall(subset) for subset in said}))
    assert soup.manifest["dev"]["overall"] == overall(chosen)
    assert soup.manifest["what"] == f"greedy soup of {len(chosen)} of 3"
    history = [json.loads(line) for line in soup.read("history.jsonl").splitlines()]
    assert frozenset(history[soup.manifest["epoch"] - 1]["members"]) == chosen and len(history) == 3
    wanted, right = [], []
    for refit in refits(data, data.sha256()):
        reached = {subset: score_split(refit.restricted(one, data), refit.data, "dev")["overall"] or 0.0
                   for subset, one in said.items()}
        wanted.append(said[frozenset(defined(ids, reached))])
        fold = refit.data.splits["sentiment"]["test"]
        scores = refit.restricted(wanted[-1], data).outputs["test"]["sentiment"].scores
        right += list(scores.argmax(1) == fold.labels)
    kept = split_epochs(soup.epochs(), data)
    for mine, index in zip(wanted, soup.manifest["refits"], strict=True):
        for task, output in mine.outputs["dev"].items():
            np.testing.assert_allclose(kept[index].outputs["dev"][task].scores, output.scores, rtol=1e-4, atol=1e-5)
    honest = json.loads((made / "results" / "demo" / "both.json").read_bytes())["tree"]["members"][1]["honest"]
    assert honest["sentiment"] == pytest.approx(np.mean(right), abs=1e-6)


def test_names_order_and_repetition_of_members_change_nothing(made: Path) -> None:
    plan = planned(made, "uniform", "again")
    assert plan.roots["uniform"] == plan.roots["again"] and not plan.todo()


def test_a_stored_run_can_be_a_member(root: Path) -> None:
    ids = ", ".join(f'"run:{member.id}"' for member in members(root))
    (root / "specs" / "stored.toml").write_text(f'kind = "soup"\nmembers = [{ids}]\n')
    assert planned(root, "stored").roots["stored"] == run(root, "uniform").id


def test_a_finished_soup_needs_nothing(root: Path) -> None:
    for member in members(root):
        shutil.rmtree(member.folder)
    plan = planned(root, "both")
    assert not plan.todo()
    assert sorted(node.name for node in plan.nodes.values() if node.state == "spare") == [
        f"rates@lr_scale={rate}" for rate in (0.5, 2.0, 6.0)]
    events = built(root, "both")
    assert not names(events, "started") and events[-1].values["failed"] == 0
    assert len(planned(root, "both", "rates").todo()) == 3, "what is asked for is trained all the same"


def test_members_that_lost_their_weights(root: Path) -> None:
    registry = Registry(root / "registry")
    lost = members(root)[1]
    registry.drop_weights(lost)
    assert not planned(root, "uniform").todo()
    registry.drop(run(root, "uniform").id)
    with pytest.raises(SpecError, match="has no weights, which `uniform` is to be made of") as caught:
        planned(root, "uniform")
    (problem,) = caught.value.problems
    assert problem.place and problem.place.line == 2 and lost.id in problem.hint


def test_weights_of_another_shape_are_seen_at_the_latest_by_the_worker(
        made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    souper = kitchen(made, "uniform")
    first = members(made)[0].id
    monkeypatch.setattr(stored_model, "load", lambda data: {**load(data), "encoder.more": torch.zeros(1)})
    with pytest.raises(TrainingError, match=f"{first}.*of another shape") as caught:
        souper.mean(frozenset([first]))
    assert caught.value.problems[0].notes == ("such as `encoder.more`",)


def test_different_starting_points_are_told(made: Path) -> None:
    assert any("the seeds 1, 2" in note for note in planned(made, "apart").notes)
    assert not any("began with" in note for note in planned(made, "uniform").notes)


def test_a_soup_of_a_failed_member_is_not_begun(tmp_path: Path) -> None:
    root = project(tmp_path, broken=BROKEN, failing=FAILING)
    events = built(root, "failing", "sum")
    assert names(events, "failed") == ["broken"] and names(events, "blocked") == ["failing"]
    assert "failing" not in names(events, "started")


def test_a_forced_soup_is_made_again_and_its_members_are_not(root: Path) -> None:
    plan = planned(root, "both")
    plan.force(["uniform"])
    assert [node.name for node in plan.todo()] == ["uniform"]


def test_a_soup_of_runs_that_were_trained_again_is_stale(root: Path) -> None:
    registry, member = Registry(root / "registry"), members(root)[0]
    files = {name: member.read(name) for name in member.manifest["files"]}
    files["model.safetensors"] = members(root)[1].read("model.safetensors")  # as other code might have made it
    registry.drop(member.id)
    registry.commit(member.id, files, {**member.manifest})
    plan = planned(root, "uniform")
    node = plan.nodes[plan.roots["uniform"]]
    assert (node.state, node.reason) == ("stale", f"made of {member.manifest['name']} before it was trained again")
    plan.rebuild_stale()
    assert [node.name for node in plan.todo()] == ["uniform"]
