"""Stored systems on any sentences say what the evaluation said."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from systems import build

from runner.errors import UsageError
from runner.inference.system import System
from runner.plan.plan import Plan
from runner.plan.planner import make_plan
from runner.plan.predict import tree_predictions
from runner.tasks.data import Examples
from runner.training.stored_model import StoredModel


def planned(root: Path, spec: str = "deep") -> Plan:
    return make_plan(root, [root / "specs" / f"{spec}.toml"], "demo")


def system(root: Path, spec: str = "deep") -> System:
    plan = planned(root, spec)
    return System(plan, plan.roots[spec])


def test_a_leaf_repeats_its_evaluation_bit_by_bit(trained: Path) -> None:
    plan = planned(trained, "sum")
    (node,) = plan.nodes.values()
    run = plan.registry.find(node.id)
    assert run
    data = plan.data[node.suite]
    torch.set_num_threads(1)
    again = StoredModel.of(run, data, trained).predict(data, ("dev", "test"))
    for split in ("dev", "test"):
        for task, stored in run.predictions().outputs[split].items():
            assert stored.ids == again.outputs[split][task].ids
            assert stored.scores.tobytes() == again.outputs[split][task].scores.tobytes()


@pytest.mark.parametrize("split", ["dev", "test"])
def test_every_node_says_of_a_split_what_is_stored(trained: Path, split: str) -> None:
    one, plan = system(trained), planned(trained)
    data = plan.data[plan.nodes[one.root].suite]
    said = one.predict({task: by_split[split] for task, by_split in data.splits.items()})
    stored = tree_predictions(plan, one.root).known
    assert said.keys() == stored.keys() == plan.nodes.keys()
    for id in said:
        for task, output in stored[id].outputs[split].items():
            assert said[id].outputs["test"][task].ids == output.ids
            np.testing.assert_allclose(said[id].outputs["test"][task].scores, output.scores, atol=1e-5, rtol=0)


def test_what_else_is_asked_changes_no_answer(trained: Path) -> None:
    one = system(trained)
    texts = ("A fine film.", "It is not good at all, and far too long.", "", "\N{SNOWMAN} \x00 " * 2000)
    ids = tuple(map(str, range(len(texts))))
    together = one.predict({"sentiment": Examples(ids, texts), "similarity": Examples(ids, texts, texts[::-1])})
    for row, text in enumerate(texts):
        alone = one.predict({"sentiment": Examples(("x",), (text,))})
        for id, said in alone.items():
            np.testing.assert_allclose(said.outputs["test"]["sentiment"].scores[0],
                                       together[id].outputs["test"]["sentiment"].scores[row], atol=1e-5)
    assert alone[one.root].outputs["test"]["paraphrase"].scores.shape == (0, 1)


BLENDS = [*(f'type = "average"\non = "{scale}"' for scale in ("probabilities", "ranks", "zscores")),
          *(f'type = "{name}"' for name in ("calibrated", "fitted", "greedy", "route", "stack", "vote", "weighted"))]


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("node", BLENDS, ids=lambda node: node.replace('"', "").replace("\n", ", "))
def test_every_type_of_node_says_of_one_what_it_says_of_many(trained: Path, tmp_path: Path, node: str) -> None:
    root = tmp_path / "copy"
    shutil.copytree(trained, root)
    weights = "[tree.weights]\nsum = 0.3\n" if "weighted" in node else ""
    (root / "specs" / "node.toml").write_text(
        f'kind = "ensemble"\n[tree]\n{node}\nmembers = ["sum.toml", "pcgrad.toml"]\n{weights}')
    one = system(root, "node")
    stored = one.on_dev.known[one.root].outputs["test"]
    test = {task: by_split["test"] for task, by_split in one.data.splits.items()}
    together = one.predict(test)[one.root].outputs["test"]
    for task, part in test.items():
        np.testing.assert_allclose(together[task].scores, stored[task].scores, atol=1e-4)
        few = Examples(part.ids[3:4], part.first[3:4], part.second[3:4])
        alone = one.predict({task: few})[one.root].outputs["test"]
        np.testing.assert_allclose(alone[task].scores, stored[task].scores[3:4], atol=1e-4)


def test_a_run_without_weights_is_named(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "copy")
    plan = planned(tmp_path / "copy")
    run = next(run for run in plan.registry.runs() if run.manifest["name"] == "sum")
    plan.registry.drop_weights(run)
    with pytest.raises(UsageError, match=rf"run {run.id} \(sum\) has no weights") as raised:
        system(tmp_path / "copy")
    assert f"--force {run.id}" in raised.value.render()
    build(tmp_path / "copy", "deep", settings=["resources.keep_weights=false"])
    assert tree_predictions(plan, plan.roots["deep"]).known, "predictions are enough for tables"


def test_a_run_that_is_not_there_is_named(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "copy", ignore=shutil.ignore_patterns("registry"))
    with pytest.raises(UsageError, match="2 of 2 runs are not trained yet") as raised:
        system(tmp_path / "copy")
    assert "sum (" in raised.value.render() and "mtrun build" in raised.value.render()
