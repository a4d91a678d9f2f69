"""The whole path on tiny projects: build, again, stop, fail, results that are the same bytes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from builds import BROKEN, PCGRAD, TREE, built, mtrun, names
from projects import project

from runner import files, machine
from runner.build import publish
from runner.build.build import Build
from runner.errors import RegistryError
from runner.plan.plan import PlannedNode
from runner.plan.planner import make_plan
from runner.registry.registry import Registry
from runner.tasks.predictions import Predictions
from runner.worker.worker import device_name

BOTH = 'kind = "ensemble"\n[tree]\ntype = "average"\nmembers = ["sum.toml", "broken.toml"]\n'


def test_a_tree_is_built_bottom_up_once(tmp_path: Path) -> None:
    root = project(tmp_path, pcgrad=PCGRAD, tree=TREE)
    events = built(root, "tree")
    assert sorted(names(events, "trained")) == ["pcgrad", "sum"]
    assert names(events, "scored")[-1] == "tree"
    assert events[-1].values == {"nodes": 4, "trained": 2, "failed": 0}
    result = (root / "results" / "demo" / "tree.json").read_bytes()
    again = built(root, "tree")
    assert not names(again, "started")
    assert (root / "results" / "demo" / "tree.json").read_bytes() == result
    tree = json.loads(result)["tree"]
    assert [m.get("name", "") for m in tree["members"]] == ["sum", "pcgrad", ""]
    assert len(tree["members"][2]["chosen"]) == 1
    costs = json.loads((root / "results" / "demo" / "costs.json").read_bytes())
    assert len(costs) == 2 and all(cost["seconds"] > 0 and cost["inference"] > 0 for cost in costs.values())
    made = [run.manifest["environment"] for run in Registry(root / "registry").runs()]
    device = device_name(torch.device("cuda" if torch.cuda.is_available() else "cpu"), 1)
    assert {(one["device"], one["processor"], one["instructions"]) for one in made} == {
        (device, machine.processor(), machine.instruction_set())} and {c["device"] for c in costs.values()} == {device}
    assert not list((root / "registry" / ".attempts").iterdir()), "nothing is left over"


def test_another_registry_gives_the_same_bytes(tmp_path: Path) -> None:
    results = []
    for folder in ("one", "two"):
        root = project(tmp_path / folder, pcgrad=PCGRAD, tree=TREE)
        built(root, "tree")
        runs = sorted((root / "registry").glob("[0-9a-f]*/*.safetensors"))
        results.append([(p.parent.name, p.name, p.read_bytes()) for p in runs]
                       + [(root / "results" / "demo" / "tree.json").read_bytes()])
    assert results[0] == results[1]
    assert len(results[0]) == 7


def test_a_leaf_that_diverges_blocks_only_what_needs_it(tmp_path: Path) -> None:
    root = project(tmp_path, broken=BROKEN, both=BOTH)
    events = built(root, "both", "sum")
    (failed,) = [e for e in events if e.event == "failed"]
    assert failed.name == "broken"
    assert "the loss of" in failed.values["problems"][0] and "at step" in failed.values["problems"][0]
    assert names(events, "blocked") == ["both"]
    assert events[-1].values["failed"] == 2
    written = sorted(path.name for path in (root / "results" / "demo").glob("*.json"))
    assert written == ["costs.json", "significance.json", "sum.json"]


def test_a_damaged_run_is_set_aside_and_trained_again(tmp_path: Path) -> None:
    root = project(tmp_path)
    built(root, "sum")
    (run,) = (root / "registry").glob("[0-9a-f]*")
    wanted = (run / "predictions.safetensors").read_bytes()
    (run / "predictions.safetensors").write_bytes(wanted[:-1])
    plan = make_plan(root, [root / "specs" / "sum.toml"], "demo")
    assert [n.reason for n in plan.nodes.values()] == ["damaged"]
    with pytest.raises(RegistryError, match="missing or of another length"):
        plan.registry.find(run.name)
    built(root, "sum")
    assert (run / "predictions.safetensors").read_bytes() == wanted
    assert len(list((root / "registry" / ".damaged").iterdir())) == 1


@pytest.mark.parametrize("name", ["predictions.safetensors", "epochs.safetensors"])
def test_damage_that_only_reading_finds_is_found_before_anything_is_made_of_it(tmp_path: Path, name: str) -> None:
    root = project(tmp_path)
    built(root, "sum")
    (run,) = (root / "registry").glob("[0-9a-f]*")
    wanted = (run / name).read_bytes()
    (run / name).write_bytes(wanted[:-1] + bytes([wanted[-1] ^ 1]))
    assert [n.action for n in make_plan(root, [root / "specs" / "sum.toml"], "demo").nodes.values()] == ["reuse"]
    events = built(root, "sum")
    assert names(events, "damaged") == names(events, "trained") == ["sum"] and events[-1].values["failed"] == 0
    assert (run / name).read_bytes() == wanted
    assert len(list((root / "registry" / ".damaged").iterdir())) == 1


def test_a_run_that_is_removed_while_it_is_scored_fails_its_node(tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    """As a run of an older result may be, which is scored again but not reserved."""
    root, predict = project(tmp_path), Build._predict

    def slow(self: Build, node: PlannedNode) -> Predictions:
        found = predict(self, node)
        self.plan.registry.drop(node.id)
        return found

    monkeypatch.setattr(Build, "_predict", slow)
    events = built(root, "sum")
    (failed,) = [event for event in events if event.event == "failed"]
    assert "was not trained" in failed.values["problems"][0] and events[-1].values["failed"] == 1


def test_the_command_line_end_to_end(tmp_path: Path) -> None:
    """Real workers: two leaves at a time, then a table, then nothing left to do."""
    root = project(tmp_path, pcgrad=PCGRAD, tree=TREE)
    build = mtrun(root, "build", "specs/tree.toml", "--json", "-j", "2")
    out, err = build.communicate(timeout=600)
    assert build.returncode == 0, err
    events = [json.loads(line) for line in out.splitlines()]
    assert events[-1] == {"v": 1, "event": "done", "name": "", "id": "", "nodes": 4, "trained": 2, "failed": 0}
    table = mtrun(root, "table", "results/")
    out, err = table.communicate(timeout=600)
    assert table.returncode == 0, err
    assert out.startswith("## demo: suite tiny") and out.count("\n| ") == 4
    page = (root / "results" / "demo" / "leaderboard.md").read_text()
    assert page.startswith("# Leaderboard: demo\n\n## demo: suite tiny")
    assert "| tree" in out and "| sum" in out and "| pcgrad" in out
    again = mtrun(root, "build", "specs/tree.toml", "-q")
    out, err = again.communicate(timeout=600)
    assert (again.returncode, err, out) == (0, "", "results/demo/tree.json\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_cleanly_and_the_next_build_goes_on(tmp_path: Path, number: int) -> None:
    root = project(tmp_path / "stopped")
    build = mtrun(root, "build", "specs/sum.toml", "--json", "--set", "train.epochs=4", "--set", "train.steps=25")
    assert build.stdout
    for text in build.stdout:
        if json.loads(text)["event"] == "progress":
            break
    build.send_signal(number)
    out, err = build.communicate(timeout=600)
    assert build.returncode == 128 + number
    assert "run the same command again" in err and "Traceback" not in err
    assert json.loads(out.splitlines()[-1])["event"] == "interrupted"
    (attempt,) = (root / "registry" / ".attempts").iterdir()
    assert (attempt / "checkpoint.safetensors").is_file()
    short = ["train.epochs=4", "train.steps=25"]
    events = built(root, "sum", settings=short)
    assert [e.values for e in events if e.event == "started"] == [{"resumed": True}]
    other = project(tmp_path / "whole")
    built(other, "sum", settings=short)
    whole, resumed = (next((r / "registry").glob("[0-9a-f]*/model.safetensors")).read_bytes() for r in (other, root))
    assert whole == resumed


def test_a_killed_worker_is_started_again(tmp_path: Path) -> None:
    root = project(tmp_path)
    build = mtrun(root, "build", "specs/sum.toml", "--json", "--set", "train.epochs=4", "--set", "train.steps=25")
    assert build.stdout
    seen = []
    for text in build.stdout:
        event = json.loads(text)
        if event["event"] == "progress" and "retried" not in seen and "progress" not in seen:
            found = subprocess.run(["pgrep", "-P", str(build.pid)], capture_output=True, text=True).stdout.split()
            os.kill(int(found[0]), signal.SIGKILL)
        seen.append(event["event"])
    assert build.wait(timeout=600) == 0
    assert "retried" in seen and seen[-1] == "done"


@pytest.mark.parametrize(("arguments", "code", "message"), [
    (["build", "specs/gone.toml"], 2, "gone.toml"),
    (["build", "specs/sum.toml", "--set", "train.epocs=1"], 2, "did you mean `epochs`"),
    (["build", "specs/sum.toml", "--executor", "locl"], 2, "did you mean `local`"),
    (["build"], 2, "Missing argument"),
    (["table", "nowhere"], 2, "no folder of results"),
])
def test_usage_errors_exit_with_2_and_start_nothing(tmp_path: Path, arguments: list[str], code: int,
                                                    message: str) -> None:
    root = project(tmp_path)
    done = mtrun(root, *arguments)
    out, err = done.communicate(timeout=600)
    assert done.returncode == code
    assert message in err and "Traceback" not in err
    assert not (root / "registry" / ".attempts").exists() and not out


def test_no_build_removes_the_predictions_whose_scores_another_reuses_meanwhile(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second build ends after the first has reused its scores and before it publishes them."""
    tree = 'kind = "ensemble"\n[tree]\ntype = "average"\nmembers = [{}]\n'
    root = project(tmp_path, pcgrad=PCGRAD, one=tree.format('"sum.toml", "pcgrad.toml"'),
                   two=tree.format('"sum.toml", "sum.toml", "pcgrad.toml"'))
    built(root, "one")
    built(root, "two")
    significance, recall = root / "results" / "demo" / "significance.json", Build._recall
    wanted = significance.read_bytes()
    shutil.rmtree(root / "results")

    def then_another(build: Build, nodes: Sequence[PlannedNode]) -> None:
        recall(build, nodes)
        monkeypatch.setattr(Build, "_recall", recall)
        built(root, "two")

    monkeypatch.setattr(Build, "_recall", then_another)
    built(root, "one")
    assert significance.read_bytes() == wanted
    cached = root / "registry" / ".cache" / "predictions" / "demo"
    (root / "results" / "demo" / "one.json").unlink()
    built(root, "two")
    assert len(list(cached.iterdir())) == 1, "predictions without a result that no build has reserved are removed"


def test_builds_that_end_together_lose_no_intervals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second build ends while the first one, which has read the results before, computes the intervals."""
    root = project(tmp_path, pcgrad=PCGRAD)
    built(root, "sum", "pcgrad")
    significance = root / "results" / "demo" / "significance.json"
    wanted = significance.read_bytes()
    shutil.rmtree(root / "results")
    update, lock, waits = publish.update, files.lock, threading.Event()
    second = threading.Thread(target=built, args=(root, "pcgrad"))

    def noted(path: Path) -> int | None:
        descriptor = lock(path)
        if descriptor is None:
            waits.set()
        return descriptor

    def slow(*arguments: Any) -> None:
        if not second.ident:
            second.start()
            while second.is_alive() and not waits.is_set():
                time.sleep(0.01)
        update(*arguments)

    monkeypatch.setattr(files, "lock", noted)
    monkeypatch.setattr(publish, "update", slow)
    built(root, "sum")
    second.join()
    assert significance.read_bytes() == wanted
