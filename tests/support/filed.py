"""Projects whose models are predictions files, so that trees are built without training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from projects import project, write

from runner.build.build import Build
from runner.build.events import Event
from runner.build.scheduler import Scheduler
from runner.plan.plan import Plan
from runner.plan.planner import make_plan
from runner.specs.loader import Loader
from runner.tasks.data import Data
from runner.tasks.predictions import Output, Predictions
from runner.worker.executors.inline import Inline

SUITE = 'kind = "suite"\ntype = "demo"\ntrain = 60\ndev = 120\ntest = 80\n'


def data_of(root: Path) -> Data:
    """Return the examples of the project's suite."""
    suite = Loader(root, "demo").suite()
    assert suite
    return suite.load(root)


def said(data: Data, skill: float, seed: int, tasks: Sequence[str] = (), splits: Sequence[str] = ("dev", "test")
         ) -> Predictions:
    """Return what a model of some skill says: the labels' logits times the skill, with noise of its own."""
    rng, outputs = np.random.default_rng(seed), {}
    for split in splits:
        for name in tasks or data.tasks:
            task, examples = data.tasks[name], data.splits[name][split]
            labels = examples.labels
            assert labels is not None
            clean = np.eye(task.classes)[labels.astype(int)] if task.kind == "classification" else (
                labels[:, None] - labels.mean())
            scores = skill * clean + rng.standard_normal(clean.shape)
            outputs.setdefault(split, {})[name] = Output(examples.ids, scores.astype(np.float32))
    return Predictions(outputs)


def made(root: Path, models: dict[str, Predictions], **trees: str) -> Path:
    """Put predictions files `specs/NAME.safetensors` and trees `specs/NAME.toml` into a project."""
    write(root, {f"specs/{name}.toml": f'kind = "ensemble"\n[tree]\n{tree}\n' for name, tree in trees.items()})
    for name, predictions in models.items():
        (root / "specs" / f"{name}.safetensors").write_bytes(predictions.to_bytes())
    return root


def suited(root: Path) -> Data:
    """Make a project with a suite of its own, and return its examples."""
    project(root)
    (root / "specs" / "suites" / "tiny.toml").write_text(SUITE)
    return data_of(root)


def planned(root: Path, *specs: str) -> Plan:
    return make_plan(root, [root / "specs" / f"{spec}.toml" for spec in specs], "demo")


def built(root: Path, *specs: str) -> list[Event]:
    """Build some trees and return the events."""
    plan = planned(root, *specs)
    return list(Build(plan, Scheduler(plan.registry, root, Inline(), jobs=1), root / "results").events())


def average(*members: str) -> str:
    """Return the table of an average of files and specs."""
    return f'type = "average"\nmembers = {[m if "." in m else f"{m}.safetensors" for m in members]}'
