"""Coalitions: what a tree says with some of its models alone.

A player is a model, wherever it stands in the tree. Without it every node that has it is made of its other members; a
node without members vanishes. A model that one node names more than once is a player for each time. A set of players
is a whole number, whose bit i stands for the player i.
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
from ...tasks.metrics import outcomes
from ...tasks.predictions import Output, Predictions

REMEMBERED = 1024
"""Most inner nodes whose Predictions are kept for the next coalitions."""


@dataclass(frozen=True)
class Player:
    """A model of a tree, for the n-th time that one node names it."""

    id: str
    name: str
    number: int = 0

    @property
    def title(self) -> str:
        """What the player is called."""
        return f"{self.name} (again)" if self.number else self.name


def subsets_of(plan: Plan, split: str) -> EnsembleSubsets:
    """Return the subsets of a plan for one spec. Raise UsageError where that is several."""
    roots = dict.fromkeys(plan.roots.values())
    if len(roots) > 1:
        raise UsageError(f"this is several systems: {', '.join(plan.roots)}")
    return EnsembleSubsets(plan, plan.nodes[next(iter(roots))], split)


@dataclass
class EnsembleSubsets:
    """One tree of a plan, and all that can be made of it by leaving out models."""

    plan: Plan
    root: PlannedNode
    split: str
    players: list[Player] = field(default_factory=list)
    leaves: dict[str, Predictions] = field(default_factory=dict)
    """What each model says of dev and of the split."""
    _masks: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """The players in or below each member of an inner node."""
    _made: dict[tuple[str, int], Predictions | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.root.spec, Tree):
            raise UsageError(f"`{self.root.title}` is no ensemble: it has no members")
        self._enter(self.root)
        missing = [self.plan.nodes[id].title for id in self.leaves if not self.leaves[id].outputs]
        if missing:
            raise UsageError(f"not trained yet: {', '.join(missing)}; `mtrun build` trains them")

    @property
    def data(self) -> Data:
        """The suite's examples."""
        return self.plan.data[self.root.suite]

    def seconds(self) -> dict[str, float]:
        """Return the seconds that a model takes for 1,000 sentences, where that was measured."""
        by_id = {}
        for id in self.leaves:
            run = self.plan.registry.find(id)
            if run and isinstance(run.manifest.get("inference"), float):
                by_id[id] = run.manifest["inference"]
        return by_id

    @property
    def whole(self) -> int:
        """The coalition of all players."""
        return (1 << len(self.players)) - 1

    def models(self, coalition: int) -> set[str]:
        """Return the ids of the models in a coalition."""
        return {player.id for i, player in enumerate(self.players) if coalition >> i & 1}

    def outcomes(self, coalitions: Iterable[int]) -> dict[str, np.ndarray]:
        """Return the outcomes [n, C] of each task for some coalitions: bool for an accuracy, else float32."""
        columns: dict[str, list[np.ndarray]] = {name: [] for name in self.data.tasks}
        for coalition in coalitions:
            said = self.predictions(coalition)
            for name, task in self.data.tasks.items():
                found = self._outcomes(name, task, said)
                columns[name].append(found.astype(np.float32 if task.kind == "regression" else np.bool_))
        return {name: np.stack(found, axis=1) for name, found in columns.items()}

    def labels(self, task: str) -> np.ndarray:
        """Return the split's labels of a task. Raise UsageError where there are none."""
        examples = self.data.splits[task].get(self.split)
        if examples is None or examples.labels is None:
            raise UsageError(f"the suite has no labels for `{task}` on {self.split}")
        return examples.labels

    def _outcomes(self, name: str, task: Task, said: Predictions | None) -> np.ndarray:
        """Return one task's outcomes [n]; where it is not predicted, those of the most frequent label or a constant."""
        labels = self.labels(name)
        scores = said.find(self.data, self.split, name) if said else None
        if scores is not None:
            return outcomes(task, scores, labels)
        if task.kind == "regression":
            return np.zeros(len(labels))
        values, counts = np.unique(labels, return_counts=True)
        return np.asarray(labels == values[counts.argmax()], np.float64)

    def predictions(self, coalition: int) -> Predictions | None:
        """Return what the tree says with some players alone; None where nothing is left."""
        return self._of(self.root, coalition)

    def tree(self, coalition: int) -> list[tuple[int, str, str]]:
        """Return depth, role and title of what is left of the tree, from the root downwards."""
        return self._left(self.root, coalition, 0, "")

    # Inside ----------------------------------------------------------------------------------------------------

    def _enter(self, node: PlannedNode) -> int:
        """Number the players in or below an inner node, and return them."""
        if node.id not in self._masks:
            masks, seen = [], dict.fromkeys(node.members, 0)
            for member in node.members:
                child = self.plan.nodes[member]
                masks.append(self._enter(child) if isinstance(child.spec, Tree) else self._player(child, seen[member]))
                seen[member] += 1
            self._masks[node.id] = tuple(masks)
        return self._below(node)

    def _below(self, node: PlannedNode) -> int:
        """Return the players in or below an inner node."""
        return reduce(or_, self._masks[node.id])

    def _player(self, leaf: PlannedNode, number: int) -> int:
        """Return the bit of a model that a node names for the n-th time."""
        player = Player(leaf.id, leaf.title, number)
        if player not in self.players:
            self.players.append(player)
            if leaf.id not in self.leaves:
                self.leaves[leaf.id] = self._said(leaf)
        return 1 << self.players.index(player)

    def _said(self, leaf: PlannedNode) -> Predictions:
        """Return what a model says of dev and of the split, in the suite's order; nothing if it is not trained."""
        run = self.plan.registry.find(leaf.id)
        said = run.predictions() if run else self.plan.filed.get(leaf.id, Predictions({}))
        kept: dict[str, dict[str, Output]] = {}
        for split in {"dev", self.split} & said.outputs.keys():
            for task in self.data.tasks:
                scores = said.find(self.data, split, task, leaf.title)
                if scores is not None:
                    kept.setdefault(split, {})[task] = Output(self.data.splits[task][split].ids, scores)
        return Predictions(kept)

    def _kept(self, node: PlannedNode, coalition: int) -> list[int]:
        """Return the positions of the members of which something is left."""
        return [position for position, mask in enumerate(self._masks[node.id]) if coalition & mask]

    def _of(self, node: PlannedNode, coalition: int) -> Predictions | None:
        """Return what an inner node says with some players alone."""
        key = node.id, coalition & self._below(node)
        if key not in self._made:
            made = self._combined(node, coalition) if key[1] else None
            while len(self._made) >= REMEMBERED:
                del self._made[next(iter(self._made))]
            self._made[key] = made
        return self._made[key]

    def _combined(self, node: PlannedNode, coalition: int) -> Predictions | None:
        """Combine what is left of a node; None where nothing comes of it, such as when no member has a task."""
        assert isinstance(node.spec, Tree)
        members = {p: self._member(self.plan.nodes[node.members[p]], coalition) for p in self._kept(node, coalition)}
        left = {position: said for position, said in members.items() if said is not None}
        if not left:
            return None
        ensemble = node.spec.ensemble.shrunk(left) if len(left) < len(node.members) else node.spec.ensemble
        try:
            return ensemble.combine(list(left.values()), self.data, [node.members[p] for p in left])
        except TrainingError:
            return None

    def _member(self, child: PlannedNode, coalition: int) -> Predictions | None:
        return self._of(child, coalition) if isinstance(child.spec, Tree) else self.leaves[child.id]

    def _left(self, node: PlannedNode, coalition: int, depth: int, role: str) -> list[tuple[int, str, str]]:
        lines = [(depth, role, node.title)]
        roles = node.roles
        for position in self._kept(node, coalition) if isinstance(node.spec, Tree) else ():
            child = self.plan.nodes[node.members[position]]
            lines += self._left(child, coalition, depth + 1, roles[position])
        return lines
