"""Coalitions: predictions of a tree reduced to a subset of its models.

A player is a model, wherever it occurs in the tree. Removing it removes it from every node that has it as a member; a
node without members is removed too. A model that one node names more than once is a separate player for each time. A
coalition, a set of players, is an integer whose bit i stands for player i.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import reduce
from operator import or_

import numpy as np

from ...errors import TrainingError, UsageError
from ...plan.plan import Plan, PlannedNode
from ...specs.spec import Tree
from ...tasks.data import Data, Task
from ...tasks.metrics import leading, logits
from ...tasks.predictions import Output, Predictions

REMEMBERED = 1024
"""Maximal number of cached Predictions of inner nodes."""


@dataclass(frozen=True)
class Player:
    """A model of a tree; `number` counts its repetitions within one node, from 0."""

    id: str
    name: str
    number: int = 0

    @property
    def title(self) -> str:
        """Title of the player."""
        return f"{self.name} (again)" if self.number else self.name


def subsets_of(plan: Plan, split: str) -> EnsembleSubsets:
    """Return the EnsembleSubsets of a plan with one root. Raise UsageError if there are several roots."""
    roots = dict.fromkeys(plan.roots.values())
    if len(roots) > 1:
        raise UsageError(f"this is several systems: {', '.join(plan.roots)}")
    return EnsembleSubsets(plan, plan.nodes[next(iter(roots))], split)


@dataclass
class EnsembleSubsets:
    """One tree of a plan, with the predictions of every subset of its models."""

    plan: Plan
    root: PlannedNode
    split: str
    players: list[Player] = field(default_factory=list)
    leaves: dict[str, Predictions] = field(default_factory=dict)
    """Predictions of each model on dev and on the split, by id."""
    _masks: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Id of an inner node -> coalition of the players in or below each member."""
    _cache: dict[tuple[str, int], Predictions | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.root.spec, Tree):
            raise UsageError(f"`{self.root.title}` is no ensemble: it has no members")
        self._add(self.root)
        missing = [self.plan.nodes[id].title for id in self.leaves if not self.leaves[id].outputs]
        if missing:
            raise UsageError(f"not trained yet: {', '.join(missing)}; `mtrun build` trains them")

    @property
    def data(self) -> Data:
        """Examples of the suite."""
        return self.plan.data[self.root.suite]

    def seconds(self) -> dict[str, float]:
        """Return the seconds per 1,000 sentences of each model by id, where measured."""
        seconds = {}
        for id in self.leaves:
            run = self.plan.registry.find(id)
            if run and isinstance(run.manifest.get("inference"), float):
                seconds[id] = run.manifest["inference"]
        return seconds

    @property
    def whole(self) -> int:
        """The coalition of all players."""
        return (1 << len(self.players)) - 1

    def models(self, coalition: int) -> set[str]:
        """Return the ids of the models in a coalition."""
        return {player.id for i, player in enumerate(self.players) if coalition >> i & 1}

    def outcomes(self, coalitions: Iterable[int]) -> dict[str, np.ndarray]:
        """Return the outcomes [n, C] of each task for some coalitions: bool for accuracies, else float32.

        They are those of the leading metrics, [n, C, d] where it needs d numbers of an example.
        """
        columns: dict[str, list[np.ndarray]] = {name: [] for name in self.data.tasks}
        for coalition in coalitions:
            predictions = self.predictions(coalition)
            for name, task in self.data.tasks.items():
                column = self._outcomes(name, task, predictions)
                columns[name].append(column.astype(np.bool_ if leading(task).name == "accuracy" else np.float32))
        return {name: np.stack(parts, axis=1) for name, parts in columns.items()}

    def labels(self, task: str) -> np.ndarray:
        """Return the labels of a task on the split. Raise UsageError if there are none."""
        examples = self.data.splits[task].get(self.split)
        if examples is None or examples.labels is None:
            raise UsageError(f"the suite has no labels for `{task}` on {self.split}")
        return examples.labels

    def _outcomes(self, name: str, task: Task, predictions: Predictions | None) -> np.ndarray:
        """Return the outcomes of one task; if not predicted, those of one answer for all (`_constant`)."""
        labels = self.labels(name)
        scores = predictions.find(self.data, self.split, name) if predictions else None
        return leading(task).outcomes(task, _constant(task, labels) if scores is None else scores, labels)

    def predictions(self, coalition: int) -> Predictions | None:
        """Return the Predictions of the tree with some players only, or None if no member is left."""
        return self._of(self.root, coalition)

    def tree(self, coalition: int) -> list[tuple[int, str, str]]:
        """Return depth, role and title of the remaining nodes of the tree, in preorder."""
        return self._remaining(self.root, coalition, 0, "")

    # Inside ----------------------------------------------------------------------------------------------------

    def _add(self, node: PlannedNode) -> int:
        """Register the players in or below an inner node, and return their coalition."""
        if node.id not in self._masks:
            masks, seen = [], dict.fromkeys(node.members, 0)
            for member in node.members:
                child = self.plan.nodes[member]
                masks.append(self._add(child) if isinstance(child.spec, Tree) else self._player(child, seen[member]))
                seen[member] += 1
            self._masks[node.id] = tuple(masks)
        return self._below(node)

    def _below(self, node: PlannedNode) -> int:
        """Return the coalition of all players in or below an inner node."""
        return reduce(or_, self._masks[node.id])

    def _player(self, leaf: PlannedNode, number: int) -> int:
        """Return the coalition of one model, named by a node for the `number`-th time."""
        player = Player(leaf.id, leaf.title, number)
        if player not in self.players:
            self.players.append(player)
            if leaf.id not in self.leaves:
                self.leaves[leaf.id] = self._leaf_predictions(leaf)
        return 1 << self.players.index(player)

    def _leaf_predictions(self, leaf: PlannedNode) -> Predictions:
        """Return the Predictions of a model on dev and the split, in the order of the suite; empty if not trained."""
        run = self.plan.registry.find(leaf.id)
        predictions = run.predictions() if run else self.plan.filed.get(leaf.id, Predictions({}))
        kept: dict[str, dict[str, Output]] = {}
        for split in {"dev", self.split} & predictions.outputs.keys():
            for task in self.data.tasks:
                scores = predictions.find(self.data, split, task, leaf.title)
                if scores is not None:
                    kept.setdefault(split, {})[task] = Output(self.data.splits[task][split].ids, scores)
        return Predictions(kept)

    def _positions(self, node: PlannedNode, coalition: int) -> list[int]:
        """Return the positions of the members that have a player in the coalition."""
        return [position for position, mask in enumerate(self._masks[node.id]) if coalition & mask]

    def _of(self, node: PlannedNode, coalition: int) -> Predictions | None:
        """Return the Predictions of an inner node with some players only, from the cache if possible."""
        key = node.id, coalition & self._below(node)
        if key not in self._cache:
            predictions = self._combined(node, coalition) if key[1] else None
            while len(self._cache) >= REMEMBERED:
                del self._cache[next(iter(self._cache))]
            self._cache[key] = predictions
        return self._cache[key]

    def _combined(self, node: PlannedNode, coalition: int) -> Predictions | None:
        """Combine the remaining members of a node; None if that fails, for example if no member has a task."""
        assert isinstance(node.spec, Tree)
        members = {p: self._member(self.plan.nodes[node.members[p]], coalition)
                   for p in self._positions(node, coalition)}
        remaining = {position: predictions for position, predictions in members.items() if predictions is not None}
        if not remaining:
            return None
        ensemble = node.spec.ensemble.shrunk(remaining) if len(remaining) < len(node.members) else node.spec.ensemble
        try:
            return ensemble.combine(list(remaining.values()), self.data, [node.members[p] for p in remaining])
        except TrainingError:
            return None

    def _member(self, child: PlannedNode, coalition: int) -> Predictions | None:
        return self._of(child, coalition) if isinstance(child.spec, Tree) else self.leaves[child.id]

    def _remaining(self, node: PlannedNode, coalition: int, depth: int, role: str) -> list[tuple[int, str, str]]:
        nodes = [(depth, role, node.title)]
        roles = node.roles
        for position in self._positions(node, coalition) if isinstance(node.spec, Tree) else ():
            child = self.plan.nodes[node.members[position]]
            nodes += self._remaining(child, coalition, depth + 1, roles[position])
        return nodes


def _constant(task: Task, labels: np.ndarray) -> np.ndarray:
    """Return scores [n, k] that are the same for all examples: the shares of the labels as logits, or their mean."""
    if task.kind == "regression":
        return np.full((len(labels), 1), labels.mean())
    shares = labels.mean(axis=0)[None] if task.kind == "multilabel" else (
        np.bincount(labels.astype(int), minlength=max(task.outputs, 2))[None] / len(labels))
    return np.repeat(logits(task, shares), len(labels), axis=0)
