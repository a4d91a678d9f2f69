"""The plan: the graph of nodes in build order, each with its id and its action."""

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
"""Reason of a leaf that has neither a run nor an attempt."""

Action = Literal["reuse", "train", "resume", "score"]


@dataclass(frozen=True)
class PlannedNode:
    """A node of the plan with its id, its children and its action."""

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
    """Files of code that changed, and titles of source runs that were trained again, since the run was finished."""
    replaces: str = ""
    """sha256 of the manifest of the finished run that the new training replaces."""
    needs: tuple[str, ...] = ()
    """Ids of the nodes that training a leaf requires (teacher, start, soup members); unused once it is finished."""
    trees: Mapping[str, Ensemble] = field(default_factory=dict)
    """Ensembles in the teacher of a student, by id."""
    spare: bool = False
    """Whether only finished leaves need the node, so that a build skips it."""

    @property
    def state(self) -> str:
        """State shown to the user: the action, or `stale` (reused with changed code), or `spare` (not needed)."""
        if self.spare and self.action != "reuse":
            return "spare"
        return "stale" if self.stale else self.action

    @property
    def what(self) -> str:
        """Short description of the node."""
        if isinstance(self.spec, Stored):
            return "a stored run"
        if isinstance(self.spec, Filed):
            return f"predictions of {self.spec.path.name}"
        return self.spec.ensemble.summary() if isinstance(self.spec, Tree) else self.spec.model.summary()

    @property
    def title(self) -> str:
        """Name of the node, or its description if it has none."""
        return self.name or self.what

    @property
    def roles(self) -> tuple[str, ...]:
        """Role of each member, such as the task of a route; empty for a member of a list."""
        return self.spec.ensemble.roles() if isinstance(self.spec, Tree) else ()

    @property
    def below(self) -> list[tuple[str, str]]:
        """Role and id of each direct dependency: members of an ensemble, required nodes of a leaf."""
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
    """Ids of the requested specs, by name."""
    specs: dict[str, str] = field(default_factory=dict)
    """Their files, relative to the project folder, by name."""
    settings: tuple[str, ...] = ()
    """Values of `--set`."""
    data: SuiteStore = field(init=False)
    """Examples of the suites by content hash."""
    suites: dict[str, str] = field(default_factory=dict)
    """Names of the suites by content hash."""
    filed: dict[str, Predictions] = field(default_factory=dict)
    """Contents of the predictions files, by id."""
    files: list[Path] = field(default_factory=list)
    """Files of the specs, and of the specs and profiles that they build on."""
    settled: list[str] = field(default_factory=list)
    """Settings that specs leave to the machine, each with the resolved value and the reason."""
    notes: list[str] = field(default_factory=list)
    """Notes for the user, such as damaged runs that will be trained again."""

    def __post_init__(self) -> None:
        self.data = SuiteStore(self.project, self.registry.cache / "suites")

    def add(self, other: Plan) -> None:
        """Merge another plan of the same project and profile; where two roots share a name, keep the first."""
        self.nodes = {**self.nodes, **{id: node for id, node in other.nodes.items() if id not in self.nodes}}
        self.roots, self.specs = other.roots | self.roots, other.specs | self.specs
        self.suites, self.filed = other.suites | self.suites, other.filed | self.filed
        self.data.update(other.data)

    def todo(self) -> list[PlannedNode]:
        """Return the leaves to train."""
        return [n for n in self.nodes.values() if n.action in ("train", "resume") and not n.spare]

    def awaited(self, leaves: Sequence[PlannedNode]) -> dict[str, set[str]]:
        """Return the ids of all nodes that must be finished before each leaf, for leaves that have dependencies."""
        return {leaf.id: self.dependencies(leaf.id) for leaf in leaves if leaf.needs}

    def dependencies(self, id: str) -> set[str]:
        """Return the ids of all direct and indirect dependencies of a node."""
        ids = {id}
        for node in reversed(self.nodes.values()):
            if node.id in ids:
                ids.update(other for _, other in node.below)
        return ids - {id}

    def mark_spare(self) -> None:
        """Set `spare` of each node."""
        needed = set(self.roots.values())
        for node in reversed(self.nodes.values()):
            if node.id in needed and (node.members or node.action != "reuse"):
                needed.update(id for _, id in node.below)
        for node in list(self.nodes.values()):
            self.nodes[node.id] = replace(node, spare=node.id not in needed)

    def force(self, names: Sequence[str]) -> None:
        """Plan to train the leaves of some nodes again, given by name or id. Raise UsageError for an unknown node.

        A finished run is kept until the new one replaces it.
        """
        for id in dict.fromkeys(leaf for name in names for leaf in self._leaves(self._id_of(name))):
            self._train_again(self.nodes[id], "forced")
        self.mark_spare()

    def rebuild_stale(self) -> None:
        """Plan to train the leaves again whose code or source runs changed since they were finished."""
        for node in list(self.nodes.values()):
            if node.stale:
                self._train_again(node, node.reason)
        self.mark_spare()

    def _id_of(self, name: str) -> str:
        """Return the id of the node with a name or an id. Raise UsageError if there is none."""
        names = {name, named_under(name, self.settings)}
        id = next((node.id for node in self.nodes.values() if names & {node.name, node.id}), None)
        if id is None:
            known = [node.name for node in self.nodes.values() if node.name]
            raise UsageError(f"no node `{name}` in this build. {did_you_mean(name, known)}".rstrip())
        return id

    def _leaves(self, id: str) -> Iterable[str]:
        """Yield the id of a node if it is trained, and of all trained members below it."""
        if isinstance(self.nodes[id].spec, Leaf):
            yield id
        for member in self.nodes[id].members:
            yield from self._leaves(member)

    def _train_again(self, node: PlannedNode, reason: str) -> None:
        """Plan the training of a leaf; its finished run, if there is a valid one, will be replaced."""
        if node.action == "reuse":
            run = self.registry.find(node.id)
            replaces = run.manifest["sha256"] if run else ""
            self.nodes[node.id] = replace(node, action="train", reason=reason, stale=(), replaces=replaces)
