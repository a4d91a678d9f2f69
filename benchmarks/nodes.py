"""One node of each kind over the stored Predictions of 20 leaves, with dev sets of the course's sizes."""

from __future__ import annotations

import tempfile
import time
from functools import cache
from pathlib import Path

from runner.part import Member
from runner.parts.ensembles import Ensemble
from runner.parts.ensembles.average import Average
from runner.parts.ensembles.best import Best
from runner.parts.ensembles.calibrated import Calibrated
from runner.parts.ensembles.fitted import Fitted
from runner.parts.ensembles.greedy import Greedy
from runner.parts.ensembles.route import Route
from runner.parts.ensembles.stack import Stack
from runner.parts.ensembles.vote import Vote
from runner.results.crossfit import CrossFit
from runner.tasks.predictions import Predictions

from . import Case
from .trees import LEAVES, data, files

NAMES = tuple(f"{number:012x}" for number in range(LEAVES))


def cases() -> list[Case]:
    """Return the time of each node; of those that choose something, with its honest scores, none remembered, too."""
    nodes: list[type[Ensemble]] = [Average, Vote, Calibrated, Best, Route, Fitted, Greedy, Stack]
    return [*(Case(f"{node.type} of {LEAVES}", lambda node=node: _one(node, False)) for node in nodes),
            *(Case(f"{node.type} of {LEAVES}, honest", lambda node=node: _one(node, True)) for node in nodes[2:])]


@cache
def _leaves() -> list[Predictions]:
    return [Predictions.from_bytes(content, str(number)) for number, content in enumerate(files())]


def _one(kind: type[Ensemble], honest: bool) -> float:
    """Return the seconds of one node over all leaves."""
    node = kind(members=tuple(Member() for _ in NAMES))  # type: ignore[call-arg]
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        made = node.combine(_leaves(), data(), NAMES)
        if honest:
            fits = CrossFit(data(), "0" * 64, Path(folder))
            for name, leaf in zip(NAMES, _leaves(), strict=True):
                fits.add_leaf(name, leaf, None, chose=False)
            fits.add_tree("tree", made, node, NAMES)
            assert fits.honest("tree")
        return time.perf_counter() - started
