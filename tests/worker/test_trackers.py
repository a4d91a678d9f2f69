"""Tracking: what TensorBoard and MLflow read back is the history, and no run depends on it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from projects import project
from runs import leaf, planned

from runner.build.build import Build
from runner.build.scheduler import Scheduler
from runner.errors import SpecError
from runner.registry.registry import HISTORY
from runner.specs import checks
from runner.specs.job import TrainingJob
from runner.specs.spec import Leaf
from runner.worker import trackers
from runner.worker.executors.inline import Inline
from runner.worker.trackers import Tracking, numbers

BOTH = ("track.tensorboard=true", "track.mlflow=true")
HISTORY_OF_THREE = [
    {"step": 5 * n, "losses": {"sentiment": 1 / n, "similarity": 2 / n},
     "dev": {"sentiment": 0.125 * n, "similarity": None, "overall": None},
     "conflict": {"pairs": {"sentiment/similarity": -0.25}, "share": 0.5, "steps": 5}} for n in (1, 2, 3)]


def order(root: Path, *settings: str) -> TrainingJob:
    """Return what a worker of the model `sum` is told."""
    node = leaf(planned(project(root), "sum", settings=settings), "sum")
    assert isinstance(node.spec, Leaf)
    return TrainingJob(node.id, node.name, root, node.spec.model)


def told(history: list[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """Return steps and values by name, as a tracker should know them."""
    found: dict[str, list[tuple[int, float]]] = {}
    for entry in history:
        for name, value in numbers(entry):
            found.setdefault(name, []).append((entry["step"], pytest.approx(value, rel=1e-6)))
    return found


def tensorboard(root: Path) -> dict[str, list[tuple[int, float]]]:
    loading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder, = (root / "tracking" / "tensorboard").iterdir()
    events = loading.EventAccumulator(str(folder)).Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_numbers_are_losses_scores_and_conflict() -> None:
    assert dict(numbers(HISTORY_OF_THREE[1])) == {
        "loss/sentiment": 0.5, "loss/similarity": 1.0, "dev/sentiment": 0.25,
        "conflict/sentiment/similarity": -0.25, "conflict/share": 0.5}
    assert dict(numbers({"step": 1, "losses": {}, "dev": {"overall": 0.5}})) == {"dev/overall": 0.5}


def test_tensorboard_has_the_history_once_though_the_run_was_stopped(tmp_path: Path) -> None:
    said: list[str] = []
    one = order(tmp_path, "track.tensorboard=true")
    first = Tracking(one, said.append)
    first.log_new_epochs(HISTORY_OF_THREE[:1])
    first.log_new_epochs(HISTORY_OF_THREE[:2])
    again = Tracking(one, said.append)
    again.log_new_epochs(HISTORY_OF_THREE[:2])  # what a checkpoint remembers
    again.log_new_epochs(HISTORY_OF_THREE)
    again.close()
    assert tensorboard(tmp_path) == told(HISTORY_OF_THREE)
    assert said == []


def test_mlflow_has_the_history_once_though_the_run_was_stopped(tmp_path: Path) -> None:
    client = pytest.importorskip("mlflow").MlflowClient
    said: list[str] = []
    one = order(tmp_path, "track.mlflow=true")
    Tracking(one, said.append).log_new_epochs(HISTORY_OF_THREE[:2])
    again = Tracking(one, said.append)
    again.log_new_epochs(HISTORY_OF_THREE)
    again.close()
    assert said == []
    store = client(f"sqlite:///{tmp_path / 'tracking' / 'mlflow.db'}")
    run, = store.search_runs([store.get_experiment_by_name("mtrun").experiment_id])
    assert (run.info.run_name, run.info.status) == ("sum", "FINISHED")
    assert run.data.params["optimizer.lr"] == "0.001"
    assert {name: [(m.step, m.value) for m in sorted(store.get_metric_history(run.info.run_id, name),
                                                    key=lambda m: m.step)]
            for name in run.data.metrics} == told(HISTORY_OF_THREE)
    assert {path.name for path in (tmp_path / "tracking").iterdir()} <= {"mlflow.db", ".mlflow.db.lock", "mlflow"}


def test_a_tracker_that_fails_is_given_up_with_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __init__(self, order: TrainingJob, folder: Path) -> None:
            self.room = 1

        def log(self, step: int, numbers: Mapping[str, float]) -> None:
            if not self.room:
                raise OSError("no space left")
            self.room -= 1

        def close(self) -> None:
            raise AssertionError("it was given up")

    monkeypatch.setitem(trackers.TRACKERS, "tensorboard", Full)
    said: list[str] = []
    followed = Tracking(order(tmp_path, "track.tensorboard=true"), said.append)
    for count in (1, 2, 3):
        followed.log_new_epochs(HISTORY_OF_THREE[:count])
    followed.close()
    assert said == ["no more is tracked by tensorboard: OSError: no space left"]


def test_tracking_is_no_part_of_the_id(tmp_path: Path) -> None:
    assert order(tmp_path, *BOTH).id == order(tmp_path).id


def test_a_package_that_is_missing_is_a_spec_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    root = project(tmp_path, x='kind = "model"\nextends = "sum.toml"\n[track]\ntensorboard = true\n')
    with pytest.raises(SpecError) as raised:
        planned(root, "x")
    problem, = raised.value.problems
    assert problem.hint == "run `pip install 'mtrun[tensorboard]'`"
    assert problem.place and problem.place.line == 4
    planned(root, "sum")


def test_a_worker_tells_every_epoch(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    plan = planned(project(tmp_path), "sum", settings=["track.tensorboard=true"])
    list(Build(plan, Scheduler(plan.registry, tmp_path, Inline(), jobs=1), tmp_path / "results").events())
    run, = plan.registry.runs()

    assert tensorboard(tmp_path) == told([json.loads(line) for line in run.read(HISTORY).splitlines()])


def test_nothing_is_tracked_unless_asked_for(tmp_path: Path) -> None:
    followed = Tracking(order(tmp_path), print)
    followed.log_new_epochs(HISTORY_OF_THREE)
    followed.close()
    assert not (tmp_path / "tracking").exists()
