"""1,000 random ensemble trees over the stored Predictions of 20 leaves, with dev sets of the course's sizes."""

from __future__ import annotations

import time
from functools import cache

import numpy as np

from runner.part import Member
from runner.parts.ensembles import Ensemble
from runner.parts.ensembles.average import Average
from runner.parts.ensembles.best import Best
from runner.parts.ensembles.route import Route
from runner.tasks.data import Data, Examples, Task
from runner.tasks.metrics import score
from runner.tasks.predictions import Output, Predictions

from . import Case
from .workload import ROWS

LEAVES, TREES = 20, 1000
TASKS = {
    "paraphrase": Task(kind="binary", title="Quora", sentences=2),
    "sentiment": Task(kind="classification", title="SST", classes=5),
    "similarity": Task(kind="regression", title="STS", sentences=2, low=0.0, high=5.0),
}


def cases() -> list[Case]:
    """Return reading the leaves' files, then combining and scoring every node of every tree."""
    return [Case("1,000 trees over 20 leaves", _sample, goal=5, stretch=2)]


def _sample() -> float:
    suite, stored, random = data(), files(), np.random.default_rng(1)
    started = time.perf_counter()
    leaves = [Predictions.from_bytes(content, str(number)).with_suite_ids(suite)
              for number, content in enumerate(stored)]
    for _ in range(TREES):
        score(_grown(leaves, suite, random, 3), suite)
    return time.perf_counter() - started


def _grown(leaves: list[Predictions], data: Data, random: np.random.Generator, depth: int) -> Predictions:
    """Return the Predictions of a random tree: averages, routes and choices by dev of leaves and of such trees."""
    if not depth or random.random() < 0.4:
        return leaves[random.integers(LEAVES)]
    kind = random.integers(3)
    members = [_grown(leaves, data, random, depth - 1) for _ in range(3 if kind == 2 else random.integers(2, 5))]
    if kind == 2:
        node: Ensemble = Route.model_construct(routes=dict.fromkeys(TASKS, Member()))
    else:
        node = (Average, Best)[kind].model_construct(members=(Member(),) * len(members))
    return node.combine(members, data, tuple(map(str, range(len(members)))))


@cache
def data() -> Data:
    """Return dev labels at random for as many rows as the course has."""
    random = np.random.default_rng(0)
    splits = {}
    for name, task in TASKS.items():
        rows = ROWS[name][1]
        ids, most = tuple(f"{name}-{row:024}" for row in range(rows)), task.classes or 2
        labels = random.integers(0, most if task.kind != "regression" else 6, rows).astype(np.float64)
        splits[name] = {"dev": Examples(ids, ids, ids if task.sentences == 2 else (), labels)}
    return Data(TASKS, splits)


@cache
def files() -> list[bytes]:
    """Return the leaves' predictions files, of scores at random."""
    random = np.random.default_rng(0)
    return [Predictions({"dev": {
        name: Output(data().splits[name]["dev"].ids,
                     random.normal(size=(len(data().splits[name]["dev"]), task.outputs)).astype(np.float32))
        for name, task in TASKS.items()}}).to_bytes() for _ in range(LEAVES)]
