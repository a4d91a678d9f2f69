"""A project with results of runs that nobody trained, on data with hostile sentences and titles."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from projects import project, write
from runs import DEVICE, planned

from runner.build.build import Build
from runner.build.scheduler import Scheduler
from runner.part import plain_dump
from runner.parts.discovery import fingerprints
from runner.plan.plan import Plan, PlannedNode
from runner.registry.registry import EPOCHS as EPOCHS_FILE
from runner.registry.registry import HISTORY, LOG, PREDICTIONS
from runner.tasks.data import Data
from runner.tasks.metrics import score_split
from runner.tasks.predictions import Output, Predictions, join_epochs
from runner.worker.executors.inline import Inline

HOSTILE = (
    "</script><script>document.title='owned'</script>",
    '<img src="https://example.org/x.png" onerror="owned()">',
    "{{ 7*7 }} {% raw %} & \"quoted\" 'single' \u202egnihtyreve\u202c",
    "--> ]]> <!-- </style></title></article>",
)
SUITE = '''
kind = "suite"
type = "files"
folder = "data"

[tasks.sentiment]
title = "<b>Feeling</b> & $x_1$"
kind = "classification"
classes = 3
columns = ["sentence"]
label = "label"
train = "train.csv"
dev = "dev.csv"
test = "test.csv"

[tasks.similarity]
title = "Likeness"
kind = "regression"
high = 5.0
columns = ["sentence", "other"]
label = "score"
train = "train.csv"
dev = "dev.csv"
'''
TREE = 'kind = "ensemble"\n[tree]\n'
SPECS = {
    "rates": 'kind = "model"\nextends = "sum.toml"\n[sweep]\n"optimizer.lr_scale" = [1.0, 2.0, 3.0]\n',
    "both": TREE + 'type = "average"\nmembers = ["top.toml", "pcgrad.toml"]\n',
    "top": TREE + 'type = "best"\nby = "overall"\nmembers = ["rates.toml"]\n',
    "way": TREE + 'type = "route"\n[tree.routes]\nsentiment = "sum.toml"\nsimilarity = "top.toml"\n',
    "pcgrad": 'kind = "model"\nextends = "sum.toml"\ncombiner = "pcgrad"\n',
    "sum": 'kind = "model"\ncombiner = "sum"\nschedule = "constant"\n'
           '[heads.sentiment]\ntype = "linear"\nloss = "cross_entropy"\n'
           '[heads.similarity]\ntype = "cosine"\nloss = "mse"\n',
}
PUBLISHED = ("both", "way", "sum")
EPOCHS = 4


def published(root: Path, profile: str = "demo") -> Path:
    """Make the project and its results; return the project's folder."""
    project(root)
    write(root, {"specs/suites/tiny.toml": SUITE, "data/train.csv": table(" in train"), "data/dev.csv": table(""),
                 "data/test.csv": table(" in test")} | {f"specs/{name}.toml": text for name, text in SPECS.items()})
    ground = root / "specs" / "profiles" / "demo.toml"
    ground.write_text(ground.read_text().partition("[heads")[0])
    plan = planned(root, *PUBLISHED)
    for node in plan.todo():
        pretend(plan, node)
    plan = planned(root, *PUBLISHED)
    list(Build(plan, Scheduler(plan.registry, root, Inline(), jobs=1), root / "results").events())
    return root


def table(words: str) -> str:
    """Return a file of data whose sentences end with `words`."""
    rows = [f"e{i}\t{HOSTILE[i % 4]} {i}{words}\t{HOSTILE[-i % 4]}\t{i % 3}\t{i % 6}".replace('"', '""')
            for i in range(40)]
    return "id\tsentence\tother\tlabel\tscore\n" + "".join(
        "\t".join(f'"{cell}"' for cell in row.split("\t")) + "\n" for row in rows)


def pretend(plan: Plan, node: PlannedNode) -> None:
    """Commit the run of a leaf that was never trained: scores and history are drawn by its id."""
    draw = np.random.default_rng(int(node.id, 16))
    data, model = plan.data[node.suite], node.spec.model
    epochs = [said(data, draw) for _ in range(EPOCHS)]
    dev = score_split(epochs[-1], data, "dev")
    history = [entry(epoch, draw, dev, data.tasks) for epoch in range(1, EPOCHS + 1)]
    manifest = {
        "name": node.name, "what": node.what, "spec": plain_dump(model), "suite": {"sha256": node.suite, "dropped": {}},
        "inputs": {}, "source": fingerprints(model), "epoch": EPOCHS, "dev": dev, "parameters": 1234, "seconds": 20.0,
        "environment": {"mtrun": "0.1.0", "python": "3.11.7", "torch": "2.13.0", "device": DEVICE, "threads": 1},
    }
    lines = "".join(json.dumps(one) + "\n" for one in history)
    of_dev = join_epochs([Predictions({"dev": epoch.outputs["dev"]}) for epoch in epochs])
    files = {PREDICTIONS: epochs[-1].to_bytes(), EPOCHS_FILE: of_dev.to_bytes(), HISTORY: lines.encode(), LOG: b""}
    plan.registry.commit(node.id, files, manifest)


def said(data: Data, draw: np.random.Generator) -> Predictions:
    """Return Predictions that mean nothing."""
    return Predictions({split: {
        name: Output(data.splits[name][split].ids, draw.normal(size=(40, task.outputs)).astype(np.float32))
        for name, task in data.tasks.items() if split in data.splits[name]} for split in ("dev", "test")})


def entry(epoch: int, draw: np.random.Generator, dev: Mapping[str, float | None],
          tasks: Iterable[str]) -> dict[str, Any]:
    """Return one epoch of a history."""
    losses = {task: float(draw.uniform(0.5, 1) / epoch) for task in tasks}
    return {"step": 5 * epoch, "losses": losses, "dev": dict(dev),
            "conflict": {"pairs": {"sentiment/similarity": float(draw.uniform(-1, 1))}, "share": 0.25, "steps": 5}}
