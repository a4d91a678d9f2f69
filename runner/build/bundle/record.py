"""Record of a bundle: a plan without specs and data, from which every result can be recomputed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from ...errors import DataError, Place, Problem
from ...files import is_safe_name, json_bytes
from ...lazy import deferred
from ...part import Member, StrictRecord, plain_dump
from ...parts.ensembles import Ensemble
from ...plan.plan import Plan, PlannedNode
from ...plan.predict import below
from ...registry.manifest import json_with_checksum
from ...registry.registry import Registry
from ...specs.spec import Filed, Stored, Tree
from ...specs.toml import Table
from ...specs.validation import PartBuilder, as_table
from ...tasks.data import Data, Examples, Task
from ...tasks.predictions import Predictions
from ...version import __version__

with deferred("numpy"):
    import numpy as np

Id = Annotated[str, Field(pattern="^[0-9a-f]{12}$")]

Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

LABELLED_SPLITS = ("dev", "test")
"""Splits whose labels are in a bundle."""


class SuiteTasks(StrictRecord):
    """Name and tasks of a suite, as scoring needs them."""

    name: str
    tasks: tuple[tuple[str, Task], ...]
    """In the suite's order, which is that of the tables' columns."""


class NodeEntry(StrictRecord):
    """A node of the plan; a leaf is a finished run or a predictions file."""

    id: Id
    name: str
    suite: Hash
    members: tuple[Id, ...] = ()
    tree: dict[str, Any] | None = None
    """The ensemble's part as JSON, its members given by their ids."""
    file: str = ""
    """Name of a predictions file."""


class FileEntry(StrictRecord):
    """Expected size in bytes and sha256 of a file."""

    size: int = Field(ge=0)
    sha256: Hash


class Record(StrictRecord):
    """Content of bundle.json: the plan, and size and sha256 of every file."""

    format: Literal[1] = 1
    mtrun: str = __version__
    profile: str
    settings: tuple[str, ...] = ()
    """Arguments of `--set`."""
    systems: dict[str, Id]
    """Root ids of the built specs, by name."""
    specs: dict[str, str] = Field(default_factory=dict)
    """Paths of the built specs relative to the project, by name."""
    suites: dict[str, SuiteTasks]
    """Suites by the sha256 of their content."""
    nodes: tuple[NodeEntry, ...]
    """Nodes in build order, members first."""
    files: dict[str, FileEntry] = Field(default_factory=dict)
    sha256: str = ""

    @model_validator(mode="after")
    def _is_whole(self) -> Record:
        """Check that all referenced nodes and suites are present, and members come first."""
        known: set[str] = set()
        for node in self.nodes:
            if not known.issuperset(node.members) or (node.tree is None) == bool(node.members):
                raise ValueError(f"the members of {node.id} do not come before it")
            if node.suite not in self.suites:
                raise ValueError(f"the suite of {node.id} is missing")
            known.add(node.id)
        if len(known) < len(self.nodes):
            raise ValueError("two nodes have one id")
        if not self.systems or not known.issuperset(self.systems.values()):
            raise ValueError("a system has no node")
        if wrong := [name for name in (self.profile, *self.systems) if not is_safe_name(name)]:
            raise ValueError(f"{wrong[0]!r} cannot be the name of a file")
        return self

    @classmethod
    def of(cls, plan: Plan, settings: Sequence[str]) -> Record:
        """Return the record of a plan, without files."""
        nodes = {node.id: node for root in plan.roots.values() for node in below(plan, root)}
        suites = {node.suite: SuiteTasks(name=plan.suites[node.suite], tasks=tuple(plan.data[node.suite].tasks.items()))
                  for node in nodes.values()}
        return cls(profile=plan.profile, settings=tuple(settings), systems=plan.roots, specs=plan.specs, suites=suites,
                   nodes=tuple(map(_entry, nodes.values())))

    def to_bytes(self) -> bytes:
        """Return the record as JSON with its checksum."""
        excluded = {"sha256"} if self.specs else {"sha256", "specs"}  # records of older versions lack `specs`
        return json_with_checksum(self.model_dump(mode="json", exclude=excluded))

    @classmethod
    def from_bytes(cls, data: bytes, shown_as: str) -> Record:
        """Parse and verify a record. Raise DataError where it is damaged."""
        try:
            record = cls.model_validate_json(data)
            if record.to_bytes() != data:
                raise ValueError("it is not what was written")
            return record
        except ValidationError as error:
            errors = error.errors(include_url=False, include_context=False, include_input=False)
            notes = tuple(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in errors[:5])
        except ValueError as error:
            notes = (str(error),)
        raise DataError(Problem("this is not the record of a bundle", Place(shown_as), notes))

    @property
    def runs(self) -> list[str]:
        """The ids of the leaves that are runs."""
        return [node.id for node in self.nodes if node.tree is None and not node.file]

    @property
    def filed(self) -> list[str]:
        """The ids of the leaves that are predictions files."""
        return [node.id for node in self.nodes if node.file]

    def suite_of(self, id: str) -> str:
        """Return the sha256 of the suite of a node."""
        return next(node.suite for node in self.nodes if node.id == id)

    def plan(self, registry: Registry, data: Mapping[str, Data], filed: Mapping[str, Predictions], parts: Path) -> Plan:
        """Rebuild the plan; its leaves are runs in `registry`, or predictions files, whose content by id is `filed`.

        `data` are the suites by their sha256; `parts` is the project, which may have parts of its own.
        Raise DataError where an ensemble is not valid.
        """
        plan = Plan(parts, self.profile, registry, {}, dict(self.systems), dict(self.specs), self.settings,
                    filed=dict(filed))
        for sha256, suite in self.suites.items():
            plan.suites[sha256] = suite.name
            plan.data.put(sha256, data[sha256])
        for entry in self.nodes:
            plan.nodes[entry.id] = _planned(entry, parts)
        return plan


def _entry(node: PlannedNode) -> NodeEntry:
    """Return the entry of a node."""
    tree = _dumped(node) if isinstance(node.spec, Tree) else None
    file = node.spec.path.name if isinstance(node.spec, Filed) else ""
    return NodeEntry(id=node.id, name=node.name, suite=node.suite, members=node.members, tree=tree, file=file)


def _dumped(node: PlannedNode) -> dict[str, Any]:
    """Return an ensemble's part as JSON, with ids in place of its members."""
    assert isinstance(node.spec, Tree)
    ids = {id(child): member for child, member in zip(node.spec.ensemble.children(), node.members, strict=True)}

    def with_ids(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: with_ids(item) for key, item in value.items()}
        if isinstance(value, list):
            return [with_ids(item) for item in value]
        return ids[id(value)] if isinstance(value, Member) else value

    dumped: dict[str, Any] = with_ids(plain_dump(node.spec.ensemble))
    return dumped


def _planned(entry: NodeEntry, parts: Path) -> PlannedNode:
    """Return the planned node of an entry. Raise DataError where an ensemble is not valid."""
    at = Place("the record of the bundle")
    node: Stored | Filed | Tree = Stored(entry.id, at)
    if entry.file:
        node = Filed(entry.name, Path(entry.file), at, entry.file)
    elif entry.tree is not None:
        builder = PartBuilder(parts, lambda value, place, _: [Stored(value, place)])
        table = as_table(entry.tree, at)
        ensemble = builder.part(Ensemble, table, at, "tree")  # type: ignore[type-abstract]
        if ensemble is None or tuple(child.id for child in ensemble.children()) != entry.members:
            raise DataError(*builder.problems or [Problem(f"the members of the node {entry.id} are not those of its "
                                                           "record", at)])
        node = Tree(entry.name, ensemble, Table(at), ())
    action: Literal["reuse", "score"] = "reuse" if entry.tree is None else "score"
    return PlannedNode(entry.id, entry.name, node, entry.members, action, "", entry.suite)


def labels(data: Data) -> bytes:
    """Return ids and labels of a suite's dev and test examples as JSON, without sentences."""
    return json_bytes({task: {split: {"ids": part.ids, "labels": None if part.labels is None else part.labels.tolist()}
                              for split, part in by_split.items() if split in LABELLED_SPLITS}
                       for task, by_split in data.splits.items()})


def data_of_labels(suite: SuiteTasks, content: bytes, shown_as: str) -> Data:
    """Return a suite's data with ids and labels only, from JSON of `labels`. Raise DataError where that is damaged."""
    try:
        by_task = _LABELS.validate_json(content)
        splits = {task: {str(split): Examples(part.ids, (), (), _labels_of(meaning, part))
                         for split, part in by_task[task].items()} for task, meaning in suite.tasks}
    except (ValidationError, KeyError, ValueError) as error:
        raise DataError(Problem(f"the labels are damaged: {type(error).__name__}", Place(shown_as))) from None
    return Data(dict(suite.tasks), splits)


_Label = Annotated[float, Field(allow_inf_nan=False)]


class _LabelledSplit(StrictRecord):
    """Ids and labels of the examples of one split."""

    ids: tuple[str, ...]
    labels: tuple[_Label, ...] | tuple[tuple[_Label, ...], ...] | None
    """Numbers; those of a multi-label task are lists of 0 and 1."""

    @model_validator(mode="after")
    def _is_whole(self) -> _LabelledSplit:
        if (self.labels is not None and len(self.labels) != len(self.ids)) or len(set(self.ids)) != len(self.ids):
            raise ValueError("there are not as many labels as ids, or an id occurs twice")
        return self


def _labels_of(task: Task, part: _LabelledSplit) -> np.ndarray | None:
    """Return the labels [n], or [n, k] of a multi-label task. Raise ValueError for another shape."""
    if part.labels is None:
        return None
    shape = (len(part.ids), task.outputs) if task.kind == "multilabel" else (len(part.ids),)
    labels = np.array(part.labels, np.float64)
    if labels.shape != shape:
        raise ValueError(f"labels of shape {labels.shape} for {shape}")
    return labels


_LABELS = TypeAdapter(dict[str, dict[Literal["dev", "test"], _LabelledSplit]])
