"""From specs to a plan: the graph of nodes in build order, each with its id and what is to be done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .errors import Problem, RegistryError, SpecError, did_you_mean
from .loader import Loader
from .registry import Registry
from .spec import Leaf, Model, Node, Stored, Tree
from .suites import Data, Suite

SCHEME = 1
"""Raised when the meaning of ids changes."""

Action = Literal["reuse", "train", "resume", "score"]


def content_id(content: Any) -> str:
    """Return the first 12 hex digits of the sha256 over canonical JSON."""
    text = json.dumps({"scheme": SCHEME, **content}, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def leaf_id(model: Model, suite: str, project: Path) -> str:
    """Return the id of a leaf: its resolved spec, the hash of the suite's content, the pretrained weights."""
    inputs = model.encoder.inputs(project)
    return content_id({"kind": "model", "spec": model.canonical(), "suite": suite, "inputs": inputs})


@dataclass(frozen=True)
class Planned:
    """A node of the plan."""

    id: str
    name: str
    """Name of the spec; empty for an inline node."""
    node: Node
    members: tuple[str, ...]
    """Ids of its children."""
    action: Action
    reason: str
    suite: str
    """Content hash of the suite it is scored on."""


@dataclass
class Plan:
    """The graph: `nodes` by id in build order, children first."""

    project: Path
    profile: str
    registry: Registry
    nodes: dict[str, Planned] = field(default_factory=dict)
    roots: dict[str, str] = field(default_factory=dict)
    """Ids of the specs that were asked for, by name."""
    data: dict[str, Data] = field(default_factory=dict)
    """Suites by content hash."""
    suites: dict[str, str] = field(default_factory=dict)
    """Names of the suites by content hash."""
    notes: list[str] = field(default_factory=list)
    """What a person should be told, such as damaged runs that will be rebuilt."""

    def todo(self) -> list[Planned]:
        """Return the leaves that are to be trained."""
        return [n for n in self.nodes.values() if n.action in ("train", "resume")]


def make(project: Path, specs: Sequence[Path], profile: str, settings: Sequence[str] = ()) -> Plan:
    """Return the plan of some specs. Raise SpecError or DataError with every problem; nothing is started."""
    loader = Loader(project, profile, settings)
    plan = Plan(project, profile, Registry(project / "registry"))
    planner = _Planner(plan)
    for path in specs:
        for node in loader.load(path):
            plan.roots[node.name] = planner.add(node)
    return plan


@dataclass
class _Planner:
    """Adds nodes bottom-up; equal ones become one."""

    plan: Plan
    suites: dict[str, str] = field(default_factory=dict)
    seen: dict[int, str] = field(default_factory=dict)

    def add(self, node: Node) -> str:
        """Return the id of a node, added with all below it."""
        if id(node) not in self.seen:
            adder = {Leaf: self._leaf, Tree: self._tree, Stored: self._stored}[type(node)]
            planned = adder(node)  # type: ignore[operator]
            self.seen[id(node)] = planned.id
            self.plan.nodes.setdefault(planned.id, planned)
        return self.seen[id(node)]

    def _leaf(self, leaf: Leaf) -> Planned:
        suite = self._suite(leaf.model.suite)
        identity = leaf_id(leaf.model, suite, self.plan.project)
        action, reason = self._state(identity)
        return Planned(identity, leaf.name, leaf, (), action, reason, suite)

    def _state(self, identity: str) -> tuple[Action, str]:
        """Return what is to be done for a leaf, and why."""
        registry = self.plan.registry
        try:
            if registry.find(identity):
                return "reuse", "finished"
        except RegistryError as error:
            self.plan.notes.append(f"{error}; it will be set aside and trained again")
            return "train", "damaged"
        if (registry.attempt(identity) / "checkpoint.safetensors").exists():
            return "resume", "stopped before its end"
        return "train", "no such run"

    def _tree(self, tree: Tree) -> Planned:
        members = tuple(self.add(child) for child in tree.node.children())
        suites = {self.plan.nodes[m].suite for m in members}
        if len(suites) != 1:
            raise SpecError(Problem("the members of an ensemble must share one suite", tree.place))
        suite = suites.pop()
        self._check_tasks(tree, self.plan.data[suite])
        content = {"kind": "ensemble", "spec": tree.node.canonical(), "members": tree.node.signature(members)}
        return Planned(content_id(content), tree.name, tree, members, "score", "", suite)

    def _check_tasks(self, tree: Tree, data: Data) -> None:
        """Raise SpecError where a node names a task that the suite lacks."""
        unknown = [(key, task) for key, task in tree.node.names_tasks().items() if task not in data.tasks]
        if unknown:
            known = ", ".join(data.tasks)
            raise SpecError(*(Problem(f"unknown task `{task}` in `{key}`", tree.place, (f"the suite has: {known}",),
                                      did_you_mean(task, data.tasks)) for key, task in unknown))

    def _stored(self, stored: Stored) -> Planned:
        run = self.plan.registry.find(stored.id)
        if run is None:
            raise SpecError(Problem(f"no run `{stored.id}` in the registry", stored.place, hint="mtrun ls lists the runs"))
        suite = run.manifest["suite"]["sha256"]
        return Planned(run.id, run.manifest["name"], stored, (), "reuse", "finished", suite)

    def _suite(self, suite: Suite) -> str:
        """Load a suite once and return the hash of its content."""
        key = suite.model_dump_json()
        if key not in self.suites:
            data = suite.load(self.plan.project)
            self.suites[key] = data.sha256()
            self.plan.data[self.suites[key]] = data
            self.plan.suites.setdefault(self.suites[key], suite.name)
        return self.suites[key]
