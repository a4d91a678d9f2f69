"""Nodes over stored predictions of 20 leaves, on dev sets of about the paper's sizes, alone and in random trees."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from runner.crossfit import CrossFit
from runner.ensembles import Ensemble
from runner.ensembles.average import Average
from runner.ensembles.best import Best
from runner.ensembles.fitted import Fitted
from runner.ensembles.greedy import Greedy
from runner.ensembles.route import Route
from runner.ensembles.stack import Stack
from runner.ensembles.vote import Vote
from runner.parts import Member
from runner.predictions import Output, Predictions
from runner.scores import score
from runner.suites import Data, Examples, Task

from . import Case

LEAVES, TREES = 20, 1000
TASKS = {"sentiment": Task(title="SST", kind="classification", classes=5),
         "paraphrase": Task(title="Quora", kind="binary"), "similarity": Task(title="STS", kind="regression", high=5.0)}
ROWS = {"sentiment": 1101, "paraphrase": 1000, "similarity": 863}
"""SST and STS as they are; Quora's dev set, which has 20,212 rows, is cut."""


def cases() -> list[Case]:
    """Return the time of a thousand trees of cheap nodes, and of one node of each kind with its honest scores."""
    nodes: list[type[Ensemble]] = [Best, Route, Fitted, Greedy, Stack]
    return [
        Case(f"{TREES:,} trees of average, route and best", _trees, goal=2.0),
        Case(f"{TREES:,} trees of vote and average on z-scores", lambda: _trees(_costlier)),
        *(Case(f"{node.type} of {LEAVES}", lambda node=node: _one(node, False)) for node in nodes),
        *(Case(f"{node.type} of {LEAVES}, honest", lambda node=node: _one(node, True)) for node in nodes),
    ]


@cache
def _data() -> Data:
    rng = np.random.default_rng(0)
    labels = {"sentiment": rng.integers(0, 5, 1101), "paraphrase": rng.integers(0, 2, 1000),
              "similarity": rng.random(863)}
    return Data(TASKS, {task: {"dev": Examples(tuple(map(str, range(n))), (), (), labels[task].astype(float))}
                        for task, n in ROWS.items()})


@cache
def _leaves() -> list[Predictions]:
    rng, data = np.random.default_rng(1), _data()
    return [Predictions({"dev": {task: Output(data.splits[task]["dev"].ids, (rng.standard_normal(
        (n, TASKS[task].outputs)) + rng.random() * np.eye(5)[:, :TASKS[task].outputs][
            data.splits[task]["dev"].labels.astype(int)]).astype(np.float32)) for task, n in ROWS.items()}})  # type: ignore[union-attr]
            for _ in range(LEAVES)]


def _cheap(dice: random.Random, members: tuple[Member, ...]) -> Ensemble:
    """Return a node as the paper has it."""
    kind = dice.randrange(3)
    if kind == 1 and len(members) >= 3:
        return Route(routes=dict(zip(TASKS, members, strict=False)))
    return Best(members=members, count=1 + len(members) // 3) if kind == 2 else Average(members=members)


def _costlier(dice: random.Random, members: tuple[Member, ...]) -> Ensemble:
    """Return a node that has more to reckon."""
    return dice.choice([Vote(members=members), Average(members=members, on="zscores")])


def _trees(node: Callable[[random.Random, tuple[Member, ...]], Ensemble] = _cheap) -> float:
    """Return the seconds in which so many trees, up to three levels deep, are combined and scored."""
    dice, data, leaves = random.Random(0), _data(), _leaves()
    started = time.perf_counter()
    for _ in range(TREES):
        score(_grown(dice, node, leaves, data, 0), data)
    return time.perf_counter() - started


def _grown(dice: random.Random, node: Callable[[random.Random, tuple[Member, ...]], Ensemble],
           leaves: list[Predictions], data: Data, depth: int) -> Predictions:
    """Return the Predictions of a random tree."""
    below = [(f"{number:012x}", leaves[number]) if depth == 2 or dice.random() < 0.8 else
             (f"{dice.getrandbits(48):012x}", _grown(dice, node, leaves, data, depth + 1))
             for number in dice.sample(range(LEAVES), dice.randint(2, 6))]
    ensemble = node(dice, tuple(Member() for _ in below))
    used = below[:len(ensemble.children())]
    return ensemble.combine([said for _, said in used], data, [name for name, _ in used])


def _one(kind: type[Ensemble], honest: bool) -> float:
    """Return the seconds of one node over all leaves; where `honest`, with its cross-fitted scores, none remembered."""
    node = kind(members=tuple(Member() for _ in range(LEAVES)))  # type: ignore[call-arg]
    names = [f"{number:012x}" for number in range(LEAVES)]
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        made = node.combine(_leaves(), _data(), names)
        if honest:
            fits = CrossFit(_data(), "0" * 64, Path(folder))
            for name, leaf in zip(names, _leaves(), strict=True):
                fits.add_leaf(name, leaf, None, chose=False)
            fits.add_tree("tree", made, node, names)
            fits.honest("tree")
        return time.perf_counter() - started
