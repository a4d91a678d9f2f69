"""Honest dev scores of trees that chose something from dev: epochs, members, weights.

Dev is cut into `FOLDS` folds, `REPEATS` times over. For each fold every choice of the tree, from the leaves up, is made
again on the other folds alone, and the tree so made is scored on the fold. How much better the tree that was fitted on
all of dev does on the same fold is its optimism (Efron & Tibshirani 1993, §17), since it has seen the fold's labels:

    honest = apparent - mean over the folds of (metric of the tree fitted on all - metric of the one fitted without it)

Of an accuracy this is the accuracy of the cross-fitted rows taken together. A correlation of them would mix the scales
of different trees; here both are scored within one fold. Where the choices never change, honest is apparent. The folds
are a function of the suite's content and the examples' ids: the same for all nodes, whatever the order of rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from pydantic import TypeAdapter

from ..errors import TrainingError
from ..files import read_cache, sha256, write_cache
from ..lazy import deferred
from ..parts.discovery import sources
from ..parts.ensembles import Ensemble, TreePredictions
from ..registry.registry import Run
from ..tasks.data import Data
from ..tasks.folds import FOLDS, Refit, labelled, refits
from ..tasks.metrics import DIGITS, OVERALL, metric, metrics, overall, score_split
from ..tasks.predictions import Predictions, split_epochs

with deferred("numpy"):
    import numpy as np

SplitScores = dict[str, float | None]

_SCORES: TypeAdapter[SplitScores] = TypeAdapter(SplitScores)


@dataclass(frozen=True)
class FittedNode:
    """What cross-fitting knows of a node."""

    predictions: Predictions
    """Those of the node as it was fitted on all of dev."""
    key: str
    """Stands for all that decides its refits."""
    run: Run | None = None
    """The run whose epoch was chosen."""
    ensemble: Ensemble | None = None
    members: tuple[str, ...] = ()


@dataclass
class CrossFit:
    """The trees of one suite, fitted again for each fold; each node once, however many trees hold it."""

    data: Data
    content: str
    """Hash of the suite's content."""
    folder: Path
    """Where scores are remembered; what is in it can be deleted at any time."""
    nodes: dict[str, FittedNode] = field(default_factory=dict)
    _trees: dict[str, tuple[Ensemble, Sequence[str]]] = field(default_factory=dict)
    """Ensembles with the ids of their members, by id."""
    _leaves: dict[str, tuple[list[Predictions], list[int]]] = field(default_factory=dict)
    """Dev predictions of a leaf after each epoch, and the best epoch by each refit."""

    def add_leaf(self, id: str, predictions: Predictions, run: Run | None, chose: bool) -> None:
        """Take note of a leaf; `chose` tells whether dev chose its epoch."""
        key = run.manifest["sha256"] if run else id
        self.nodes[id] = FittedNode(predictions, key, run if chose else None)

    def add_tree(self, id: str, predictions: Predictions, ensemble: Ensemble, members: Sequence[str]) -> None:
        """Take note of an ensemble whose members were added before."""
        code = {file: sha256(path) for file, path in sources(ensemble).items()}
        parts = [id, code, [self.nodes[member].key for member in members]]
        self.nodes[id] = FittedNode(predictions, _digest(parts), None, ensemble, tuple(members))
        self._trees[id] = ensemble, tuple(members)

    def honest(self, id: str) -> SplitScores | None:
        """Return a node's cross-fitted dev scores; None where nothing was chosen, and where they cannot be had:

        a run kept no epochs, a task has fewer dev rows than folds, a node cannot be fitted without one of the folds.
        Raise RegistryError for a damaged run.
        """
        below = list(self._below(id))
        runs = [node.run for node in below if node.run]
        if any(not run.has_epochs() for run in runs):
            return None
        if not runs and not any(node.ensemble and node.ensemble.chooses for node in below):
            return None
        path = self.folder / f"{_digest([self._code, self.content, self.nodes[id].key])}.json"
        if (known := read_cache(path)) is not None:
            return _SCORES.validate_json(known, strict=True)
        if any(len(rows) < FOLDS for rows in labelled(self.data).values()):
            return None
        try:
            scores = self._scored(id)
        except TrainingError:
            return None
        write_cache(path, json.dumps(scores).encode())
        return scores

    def _below(self, id: str) -> Iterator[FittedNode]:
        """Yield a node and all below it, each once."""
        seen, todo = {id}, [id]
        while todo:
            node = self.nodes[todo.pop()]
            yield node
            todo += [member for member in node.members if member not in seen]
            seen.update(node.members)

    @cached_property
    def _code(self) -> list[str]:
        """Hashes of the code that scores depend on besides that of the parts."""
        here = Path(__file__).parents[1]
        files = ("results/crossfit.py", "tasks/folds.py", "tasks/metrics.py", "parts/ensembles/_scales.py",
                 "parts/ensembles/__init__.py")
        return [sha256(here / file) for file in files]

    @cached_property
    def _refits(self) -> list[Refit]:
        return list(refits(self.data, self.content))

    def _scored(self, id: str) -> SplitScores:
        """Return a node's apparent scores less their optimism, to 6 digits."""
        whole, made = self.nodes[id].predictions, self.refitted(id)
        honest = dict(score_split(whole, self.data, "dev"))
        for name, apparent in honest.items():
            if apparent is not None and name != OVERALL:
                honest[name] = apparent - self._optimism(name, whole, made)
        honest[OVERALL] = overall(honest, self.data.tasks)
        return {name: None if value is None else round(min(1.0, value), DIGITS) + 0.0 for name, value in honest.items()}

    def _optimism(self, task: str, whole: Predictions, made: Sequence[Predictions]) -> float:
        """Return how much better the whole fit is than the refits, in the mean over all rows of all folds."""
        meaning, total, rows = self.data.tasks[task], 0.0, 0
        seen = whole.find(self.data, "dev", task)
        for refit, predictions in zip(self._refits, made, strict=True):
            fold, unseen = refit.rows["test"][task], predictions.find(refit.data, "test", task)
            labels = refit.data.splits[task]["test"].labels
            assert seen is not None and labels is not None
            if unseen is not None and len(fold) and not np.array_equal(seen[fold], unseen):
                total += len(fold) * (metric(meaning, seen[fold], labels) - metric(meaning, unseen, labels))
            rows += len(fold)
        return total / rows

    def refitted(self, id: str) -> list[Predictions]:
        """Return a node's Predictions for each refit, by the choices made there: of what is left and of the fold."""
        return [tree.of(id) for tree in self._refitted_trees]

    @cached_property
    def _refitted_trees(self) -> list[TreePredictions]:
        """The trees for each refit: every ensemble fitted on what is left of dev."""
        return [TreePredictions(refit.data, self._trees, partial(self._refitted_leaf, number))
                for number, refit in enumerate(self._refits)]

    def _refitted_leaf(self, number: int, id: str) -> Predictions:
        """Return a leaf's Predictions of the epoch that would have been kept by a refit's rows."""
        if id not in self._leaves:
            run = self.nodes[id].run
            epochs = split_epochs(run.epochs(), self.data) if run else [self.nodes[id].predictions]
            self._leaves[id] = epochs, self._best(epochs, run)
        epochs, best = self._leaves[id]
        return self._refits[number].restricted(epochs[best[number]], self.data)

    def _best(self, epochs: Sequence[Predictions], run: Run | None) -> list[int]:
        """Return for each refit the epoch that training would have kept by the rows that are left."""
        if run and "refits" in run.manifest:  # of a greedy soup, which made them where the weights were
            return list(run.manifest["refits"])
        if run is None or len(epochs) == 1:
            return [0] * len(self._refits)
        spec, reached = run.manifest["spec"], np.zeros((len(self._refits), len(epochs)))
        tasks = sorted(spec["train"].get("tasks") or spec["heads"])  # the order in which training adds their scores
        if any(task not in self._refits[0].data.tasks for task in tasks):
            return [0] * len(self._refits)  # as in training, which then keeps the first
        for task in tasks:
            said = [epoch.find(self.data, "dev", task) for epoch in epochs]
            stacked, meaning = np.stack([scores for scores in said if scores is not None]), self.data.tasks[task]
            for number, refit in enumerate(self._refits):
                labels = refit.data.splits[task]["dev"].labels
                assert labels is not None
                each = metrics(meaning, stacked[:, refit.rows["dev"][task]], labels)
                reached[number] += (each + 1) / 2 if meaning.kind == "regression" else each
        return [int(epoch) for epoch in reached.argmax(axis=1)]


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
