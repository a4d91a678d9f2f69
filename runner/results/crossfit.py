"""Honest (cross-fitted) dev scores of trees that chose something on dev: epochs, members, weights.

Dev is split into `FOLDS` folds, `REPEATS` times. For each fold, every choice of the tree, from the leaves up, is
repeated on the other folds, and the refitted tree is scored on the fold. The optimism (Efron & Tibshirani 1993, §17) is
the difference in score, on the same fold, between the tree fitted on all of dev and the refitted one:

    honest = apparent - mean over the folds of (metric of the tree fitted on all - metric of the one fitted without it)

For accuracy this equals the accuracy of the pooled cross-fitted rows. A pooled correlation would mix the scales of
different trees, so both trees are scored within one fold. If no choice changes, honest equals apparent. The folds are a
function of the content of the suite and the ids of the examples: the same for all nodes, in any order of rows.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ..errors import TrainingError
from ..files import read_cache, sha256, write_cache
from ..lazy import deferred
from ..parts.discovery import sources
from ..parts.ensembles import Ensemble, TreePredictions
from ..registry.registry import Run
from ..tasks.data import Data
from ..tasks.folds import FOLDS, Refit, labelled, refits
from ..tasks.metric_types import Metric
from ..tasks.metrics import (
    DIGITS,
    OVERALL,
    Measure,
    counted,
    leading,
    measured,
    measures,
    overall,
    score_split,
    values,
)
from ..tasks.predictions import Predictions, split_epochs

with deferred("numpy"):
    import numpy as np

SplitScores = dict[str, float | None]

_SCORES: TypeAdapter[SplitScores] = TypeAdapter(dict[str, float | None])


@dataclass(frozen=True)
class FittedNode:
    """A node fitted on all of dev, with what is needed to refit it."""

    predictions: Predictions
    """Predictions of the node fitted on all of dev."""
    key: str
    """Hash of everything that determines its refits."""
    run: Run | None = None
    """The run of a leaf whose epoch was chosen on dev."""
    ensemble: Ensemble | None = None
    members: tuple[str, ...] = ()


@dataclass
class CrossFit:
    """Refits the trees of one suite for each fold; a node shared by several trees is refitted once."""

    data: Data
    content: str
    """Hash of the content of the suite."""
    folder: Path
    """Cache of scores; its files can be deleted at any time."""
    nodes: dict[str, FittedNode] = field(default_factory=dict)
    _trees: dict[str, tuple[Ensemble, Sequence[str]]] = field(default_factory=dict)
    """Ensembles with the ids of their members, by id."""
    _leaves: dict[str, tuple[list[Predictions], list[int]]] = field(default_factory=dict)
    """Dev predictions of each leaf after each epoch, and its best epoch for each refit."""

    def add_leaf(self, id: str, predictions: Predictions, run: Run | None, chose: bool) -> None:
        """Add a leaf; `chose` is whether its epoch was chosen on dev."""
        key = run.manifest["sha256"] if run else id
        self.nodes[id] = FittedNode(predictions, key, run if chose else None)

    def add_tree(self, id: str, predictions: Predictions, ensemble: Ensemble, members: Sequence[str]) -> None:
        """Add an ensemble whose members were added before."""
        code = {file: sha256(path) for file, path in sources(ensemble).items()}
        parts = [id, code, [self.nodes[member].key for member in members]]
        self.nodes[id] = FittedNode(predictions, _digest(parts), None, ensemble, tuple(members))
        self._trees[id] = ensemble, tuple(members)

    def honest(self, id: str) -> SplitScores | None:
        """Return the cross-fitted dev scores of a node, or None if nothing was chosen on dev.

        None also if they cannot be computed: a run has no predictions of its epochs, a task has fewer dev rows than
        folds, or a node cannot be fitted without one of the folds. Raise RegistryError for a damaged run.
        """
        below = list(self._below(id))
        runs = [node.run for node in below if node.run]
        if any(not run.has_epochs() for run in runs):
            return None
        if not runs and not any(node.ensemble and node.ensemble.chooses for node in below):
            return None
        path = self.folder / f"{_digest([self._code, self.content, self.nodes[id].key])}.json"
        if cached := self._cached(path):
            return cached
        if any(len(rows) < FOLDS for rows in labelled(self.data).values()):
            return None
        try:
            scores = self._scored(id)
        except TrainingError:
            return None
        write_cache(path, json.dumps(scores).encode())
        return scores

    def _cached(self, path: Path) -> SplitScores | None:
        """Return the scores in a file of the cache, or None where there are none, or none of this suite."""
        with contextlib.suppress(ValidationError):
            scores = _SCORES.validate_json(read_cache(path) or b"", strict=True)
            return scores if scores.keys() == {*measures(self.data.tasks), OVERALL} else None
        return None

    def _below(self, id: str) -> Iterator[FittedNode]:
        """Yield a node and all its members, direct and indirect, each once."""
        seen, todo = {id}, [id]
        while todo:
            node = self.nodes[todo.pop()]
            yield node
            todo += [member for member in node.members if member not in seen]
            seen.update(node.members)

    @cached_property
    def _code(self) -> list[str]:
        """Hashes of the code that scores depend on, except the code of the parts."""
        package = Path(__file__).parents[1]
        files = ("results/crossfit.py", "tasks/folds.py", "tasks/metrics.py", "tasks/metric_types.py",
                 "parts/ensembles/_scales.py", "parts/ensembles/__init__.py")
        return [sha256(package / file) for file in files]

    @cached_property
    def _refits(self) -> list[Refit]:
        return list(refits(self.data, self.content))

    def _scored(self, id: str) -> SplitScores:
        """Return the apparent scores of a node less their optimism, rounded to `DIGITS` digits."""
        whole, refitted = self.nodes[id].predictions, self.refitted(id)
        honest = dict(score_split(whole, self.data, "dev"))
        for column, measure in measures(self.data.tasks).items():
            apparent = honest[column]
            if apparent is not None:
                shown = apparent - self._optimism(measure, whole, refitted)
                honest[column] = min(measure.metric.high, max(measure.metric.low, shown))
        honest[OVERALL] = overall(honest, self.data.tasks)
        return {name: None if value is None else round(value, DIGITS) + 0.0 for name, value in honest.items()}

    def _optimism(self, measure: Measure, whole: Predictions, refitted: Sequence[Predictions]) -> float:
        """Return the mean difference of a metric between the whole fit and the refits, weighted by rows."""
        (task, meaning, metric), total, rows = measure, 0.0, 0
        fitted = whole.find(self.data, "dev", task)
        for refit, predictions in zip(self._refits, refitted, strict=True):
            fold, held_out = refit.rows["test"][task], predictions.find(refit.data, "test", task)
            labels = refit.data.splits[task]["test"].labels
            assert fitted is not None and labels is not None
            if held_out is not None and len(fold) and not np.array_equal(fitted[fold], held_out):
                total += len(fold) * (measured(metric, meaning, fitted[fold], labels)
                                      - measured(metric, meaning, held_out, labels))
            rows += len(fold)
        return total / rows

    def refitted(self, id: str) -> list[Predictions]:
        """Return the Predictions of a refitted node for each refit: of the other folds (dev) and of the fold (test)."""
        return [tree.of(id) for tree in self._refitted_trees]

    @cached_property
    def _refitted_trees(self) -> list[TreePredictions]:
        """The trees of each refit: every ensemble fitted on the other folds."""
        return [TreePredictions(refit.data, self._trees, partial(self._refitted_leaf, number))
                for number, refit in enumerate(self._refits)]

    def _refitted_leaf(self, number: int, id: str) -> Predictions:
        """Return the Predictions of a leaf at the epoch that scores best on the other folds of a refit."""
        if id not in self._leaves:
            run = self.nodes[id].run
            epochs = split_epochs(run.epochs(), self.data) if run else [self.nodes[id].predictions]
            self._leaves[id] = epochs, self._best(epochs, run)
        epochs, best = self._leaves[id]
        return self._refits[number].restricted(epochs[best[number]], self.data)

    def _best(self, epochs: Sequence[Predictions], run: Run | None) -> list[int]:
        """Return for each refit the index of the epoch that training would have kept on the other folds."""
        if run and "refits" in run.manifest:  # a greedy soup computes them in training, where it has the weights
            return list(run.manifest["refits"])
        if run is None or len(epochs) == 1:
            return [0] * len(self._refits)
        spec, reached = run.manifest["spec"], np.zeros((len(self._refits), len(epochs)))
        tasks = sorted(spec["train"].get("tasks") or spec["heads"])  # the order in which training adds their scores
        if any(task not in self._refits[0].data.tasks for task in tasks):
            return [0] * len(self._refits)  # as in training, which then keeps the first
        for task, metric in self._selecting(tasks, spec["train"].get("select_by", OVERALL)):
            by_epoch = [epoch.find(self.data, "dev", task) for epoch in epochs]
            stacked, meaning = np.stack([scores for scores in by_epoch if scores is not None]), self.data.tasks[task]
            for number, refit in enumerate(self._refits):
                labels = refit.data.splits[task]["dev"].labels
                assert labels is not None
                each = values(metric, meaning, stacked[:, refit.rows["dev"][task]], labels)
                reached[number] += (meaning.counts or 1.0) * metric.share(meaning, each)
        return [int(epoch) for epoch in reached.argmax(axis=1)]

    def _selecting(self, tasks: Sequence[str], by: str) -> list[tuple[str, Metric]]:
        """Return the tasks and metrics by which training selected an epoch."""
        if by != OVERALL:
            return [(measure.name, measure.metric) for measure in [measures(self.data.tasks)[by]]]
        return [(task, leading(meaning)) for task, meaning in counted({t: self.data.tasks[t] for t in tasks}).items()]


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
