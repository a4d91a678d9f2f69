"""From specs to a plan: the graph of nodes in build order, each with its id and what is to be done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from ..errors import UsageError, did_you_mean
from ..parts.ensembles import Ensemble
from ..registry.registry import Registry
from ..specs.loader import named_under
from ..specs.spec import Filed, Leaf, Node, Stored, Tree
from ..tasks.predictions import Predictions
from .suite_store import SuiteStore

NEW = "no such run"
"""Why a leaf is trained of which there is no trace."""

Action = Literal["reuse", "train", "resume", "score"]


@dataclass(frozen=True)
class PlannedNode:
    """A node of the plan."""

    id: str
    name: str
    """Name of the spec; empty for an inline node."""
    spec: Node
    """The resolved spec of the node."""
    members: tuple[str, ...]
    """Ids of its children."""
    action: Action
    reason: str
    suite: str
    """Content hash of the suite it is scored on."""
    stale: tuple[str, ...] = ()
    """What is no longer that which a finished run was made with: files of code, or runs that it is made of."""
    replaces: str = ""
    """sha256 of the manifest of the finished run that is trained again."""
    needs: tuple[str, ...] = ()
    """Ids of the nodes that a leaf is made from, which nothing is asked of once it is finished."""
    trees: Mapping[str, Ensemble] = field(default_factory=dict)
    """Of a student: the ensembles in its teacher, by id."""
    spare: bool = False
    """Whether only finished leaves need the node, so that a build leaves it alone."""

    @property
    def state(self) -> str:
        """What a person is told: the action, that a run is reused though its code is stale, or that none is needed."""
        if self.spare and self.action != "reuse":
            return "spare"
        return "stale" if self.stale else self.action

    @property
    def what(self) -> str:
        """What the node is in a few words."""
        if isinstance(self.spec, Stored):
            return "a stored run"
        if isinstance(self.spec, Filed):
            return f"predictions of {self.spec.path.name}"
        return self.spec.ensemble.summary() if isinstance(self.spec, Tree) else self.spec.model.summary()

    @property
    def title(self) -> str:
        """What the node is called; what it is, where it has no name."""
        return self.name or self.what

    @property
    def roles(self) -> tuple[str, ...]:
        """What each member is for, such as a route's task; empty for one in a list."""
        return self.spec.ensemble.roles() if isinstance(self.spec, Tree) else ()

    @property
    def below(self) -> list[tuple[str, str]]:
        """Role and id of each node that this one is made of, members or what a leaf needs."""
        model = self.spec.model if isinstance(self.spec, Leaf) else None
        start = getattr(model.start, "id", "") if model else ""
        other = "teacher" if self.trees or (model and model.teacher) else ""
        needs = (("start" if id == start else other, id) for id in self.needs)
        return [*zip(self.roles, self.members, strict=True), *needs]


@dataclass
class Plan:
    """The graph: `nodes` by id in build order, children first."""

    project: Path
    profile: str
    registry: Registry
    nodes: dict[str, PlannedNode] = field(default_factory=dict)
    roots: dict[str, str] = field(default_factory=dict)
    """Ids of the specs that were asked for, by name."""
    specs: dict[str, str] = field(default_factory=dict)
    """Their files, from the project's folder, by name."""
    settings: tuple[str, ...] = ()
    """What `--set` said."""
    data: SuiteStore = field(init=False)
    """Examples of the suites by content hash."""
    suites: dict[str, str] = field(default_factory=dict)
    """Names of the suites by content hash."""
    filed: dict[str, Predictions] = field(default_factory=dict)
    """What the predictions files say, by id."""
    files: list[Path] = field(default_factory=list)
    """The specs, and what they stand on."""
    settled: list[str] = field(default_factory=list)
    """What specs leave open and what it became on this machine, each with the reason."""
    notes: list[str] = field(default_factory=list)
    """What a person should be told, such as damaged runs that will be rebuilt."""

    def __post_init__(self) -> None:
        self.data = SuiteStore(self.project, self.registry.cache / "suites")

    def add(self, other: Plan) -> None:
        """Take the nodes of another plan of the same project and profile; of two roots of one name the first stays."""
        self.nodes = {**self.nodes, **{id: node for id, node in other.nodes.items() if id not in self.nodes}}
        self.roots, self.specs = other.roots | self.roots, other.specs | self.specs
        self.suites, self.filed = other.suites | self.suites, other.filed | self.filed
        self.data.update(other.data)

    def todo(self) -> list[PlannedNode]:
        """Return the leaves that are to be trained."""
        return [n for n in self.nodes.values() if n.action in ("train", "resume") and not n.spare]

    def awaited(self, leaves: Sequence[PlannedNode]) -> dict[str, set[str]]:
        """Return for each of some leaves that is made of others the ids of all nodes that must come before it."""
        return {leaf.id: self.beneath(leaf.id) for leaf in leaves if leaf.needs}

    def beneath(self, id: str) -> set[str]:
        """Return the ids of all nodes that a node is made of, directly or not."""
        found = {id}
        for node in reversed(self.nodes.values()):
            if node.id in found:
                found.update(other for _, other in node.below)
        return found - {id}

    def settle(self) -> None:
        """Find which nodes are spare."""
        needed = set(self.roots.values())
        for node in reversed(self.nodes.values()):
            if node.id in needed and (node.members or node.action != "reuse"):
                needed.update(id for _, id in node.below)
        for node in list(self.nodes.values()):
            self.nodes[node.id] = replace(node, spare=node.id not in needed)

    def force(self, names: Sequence[str]) -> None:
        """Have the leaves of some nodes, given by name or id, trained again. Raise UsageError for an unknown node.

        A finished run stays where it is until the new one takes its place.
        """
        for id in dict.fromkeys(leaf for name in names for leaf in self._leaves(self._id_of(name))):
            self._train_again(self.nodes[id], "forced")
        self.settle()

    def rebuild_stale(self) -> None:
        """Have the leaves trained again whose runs were made by older code, or of runs that changed since."""
        for node in list(self.nodes.values()):
            if node.stale:
                self._train_again(node, node.reason)
        self.settle()

    def _id_of(self, name: str) -> str:
        """Return the id of the node with a name, or with an id."""
        names = {name, named_under(name, self.settings)}
        id = next((node.id for node in self.nodes.values() if names & {node.name, node.id}), None)
        if id is None:
            known = [node.name for node in self.nodes.values() if node.name]
            raise UsageError(f"no node `{name}` in this build. {did_you_mean(name, known)}".rstrip())
        return id

    def _leaves(self, id: str) -> Iterable[str]:
        """Yield a node that is trained, or all such below it."""
        if isinstance(self.nodes[id].spec, Leaf):
            yield id
        for member in self.nodes[id].members:
            yield from self._leaves(member)

    def _train_again(self, node: PlannedNode, reason: str) -> None:
        """Plan the training of a leaf whose finished run, if there is a sound one, is to be replaced."""
        if node.action == "reuse":
            run = self.registry.find(node.id)
            replaces = run.manifest["sha256"] if run else ""
            self.nodes[node.id] = replace(node, action="train", reason=reason, stale=(), replaces=replaces)
