"""Records: a plan written down without its specs and data, from which every result can be computed again."""

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
from ...registry.manifest import sealed
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

JUDGED = ("dev", "test")
"""Splits whose labels are recorded."""


class Judged(StrictRecord):
    """A suite as scoring knows it."""

    name: str
    tasks: tuple[tuple[str, Task], ...]
    """In the order of the suite, which is that of the columns."""


class Entry(StrictRecord):
    """A node of the plan; a leaf is a finished run or a predictions file."""

    id: Id
    name: str
    suite: Hash
    members: tuple[Id, ...] = ()
    tree: dict[str, Any] | None = None
    """The node of an ensemble, its members named by their ids."""
    file: str = ""
    """Name of a predictions file."""


class Size(StrictRecord):
    """What a file must be."""

    size: int = Field(ge=0)
    sha256: Hash


class Record(StrictRecord):
    """What was built, and what every file of it must be."""

    format: Literal[1] = 1
    mtrun: str = __version__
    profile: str
    settings: tuple[str, ...] = ()
    """What `--set` said."""
    systems: dict[str, Id]
    """The specs that were asked for, by name."""
    specs: dict[str, str] = Field(default_factory=dict)
    """Their files, from the project's folder, by name."""
    suites: dict[str, Judged]
    """Suites by the hash of their content."""
    nodes: tuple[Entry, ...]
    """Nodes in build order, members first."""
    files: dict[str, Size] = Field(default_factory=dict)
    sha256: str = ""

    @model_validator(mode="after")
    def _is_whole(self) -> Record:
        """Check that what is named is there, members first."""
        known: set[str] = set()
        for node in self.nodes:
            if not known.issuperset(node.members) or (node.tree is None) == bool(node.members):
                raise ValueError(f"the members of {node.id} do not come before it")
            if node.suite not in self.suites:
                raise ValueError(f"the suite of {node.id} is missing")
            known.add(node.id)
        if not self.systems or not known.issuperset(self.systems.values()):
            raise ValueError("a system has no node")
        if wrong := [name for name in (self.profile, *self.systems) if not is_safe_name(name)]:
            raise ValueError(f"{wrong[0]!r} cannot be the name of a file")
        return self

    @classmethod
    def of(cls, plan: Plan, settings: Sequence[str]) -> Record:
        """Return the record of a plan, without files."""
        nodes = {node.id: node for root in plan.roots.values() for node in below(plan, root)}
        suites = {node.suite: Judged(name=plan.suites[node.suite], tasks=tuple(plan.data[node.suite].tasks.items()))
                  for node in nodes.values()}
        return cls(profile=plan.profile, settings=tuple(settings), systems=plan.roots, specs=plan.specs, suites=suites,
                   nodes=tuple(map(_entry, nodes.values())))

    def to_bytes(self) -> bytes:
        """Return the bytes of the record, sealed."""
        without = {"sha256"} if self.specs else {"sha256", "specs"}  # which records of older versions do not have
        return sealed(self.model_dump(mode="json", exclude=without))

    @classmethod
    def from_bytes(cls, data: bytes, shown_as: str) -> Record:
        """Return the record in a file's bytes. Raise DataError for damage."""
        try:
            record = cls.model_validate_json(data)
            if record.to_bytes() != data:
                raise ValueError("it is not what was written")
            return record
        except ValidationError as error:
            found = error.errors(include_url=False, include_context=False, include_input=False)
            notes = tuple(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in found[:5])
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

    def plan(self, registry: Registry, data: Mapping[str, Data], filed: Mapping[str, Predictions], parts: Path) -> Plan:
        """Return the plan again, all leaves stored in a registry but for what predictions files say.

        `data` are the suites by their hash; `parts` is the project, which may have parts of its own.
        Raise DataError where a node of an ensemble is no longer valid.
        """
        plan = Plan(parts, self.profile, registry, {}, dict(self.systems), dict(self.specs), self.settings,
                    filed=dict(filed))
        for sha256, suite in self.suites.items():
            plan.suites[sha256] = suite.name
            plan.data.put(sha256, data[sha256])
        for entry in self.nodes:
            plan.nodes[entry.id] = _planned(entry, parts)
        return plan


def _entry(node: PlannedNode) -> Entry:
    """Return the entry of a node."""
    tree = _dumped(node) if isinstance(node.spec, Tree) else None
    file = node.spec.path.name if isinstance(node.spec, Filed) else ""
    return Entry(id=node.id, name=node.name, suite=node.suite, members=node.members, tree=tree, file=file)


def _dumped(node: PlannedNode) -> dict[str, Any]:
    """Return the node of an ensemble as JSON, with the ids of its members in their places."""
    assert isinstance(node.spec, Tree)
    ids = {id(child): name for child, name in zip(node.spec.ensemble.children(), node.members, strict=True)}

    def named(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: named(item) for key, item in value.items()}
        if isinstance(value, list):
            return [named(item) for item in value]
        return ids[id(value)] if isinstance(value, Member) else value

    dumped: dict[str, Any] = named(plain_dump(node.spec.ensemble))
    return dumped


def _planned(entry: Entry, parts: Path) -> PlannedNode:
    """Return the node that an entry describes. Raise DataError."""
    at = Place("the record of the bundle")
    node: Stored | Filed | Tree = Stored(entry.id, at)
    if entry.file:
        node = Filed(entry.name, Path(entry.file), at, entry.file)
    elif entry.tree is not None:
        assembly = PartBuilder(parts, lambda value, place, _: [Stored(value, place)])
        table = as_table(entry.tree, at)
        ensemble = assembly.part(Ensemble, table, at, "tree")  # type: ignore[type-abstract]
        if ensemble is None or tuple(child.id for child in ensemble.children()) != entry.members:
            raise DataError(*assembly.problems or [Problem(f"the members of the node {entry.id} are not those of its "
                                                           "record", at)])
        node = Tree(entry.name, ensemble, Table(at), ())
    action: Literal["reuse", "score"] = "reuse" if entry.tree is None else "score"
    return PlannedNode(entry.id, entry.name, node, entry.members, action, "", entry.suite)


def labels(data: Data) -> bytes:
    """Return ids and labels of the dev and test examples of a suite as JSON, without their sentences."""
    return json_bytes({task: {split: {"ids": part.ids, "labels": None if part.labels is None else part.labels.tolist()}
                              for split, part in by_split.items() if split in JUDGED}
                       for task, by_split in data.splits.items()})


def judged(suite: Judged, content: bytes, shown_as: str) -> Data:
    """Return a suite whose examples are ids and labels. Raise DataError where the file is not one of `labels`."""
    try:
        held = _LABELS.validate_json(content)
        splits = {task: {str(split): Examples(one.ids, (), (), None if one.labels is None else np.array(one.labels))
                         for split, one in held[task].items()} for task, _ in suite.tasks}
    except (ValidationError, KeyError) as error:
        raise DataError(Problem(f"the labels are damaged: {type(error).__name__}", Place(shown_as))) from None
    return Data(dict(suite.tasks), splits)


class _Labelled(StrictRecord):
    """The examples of one split."""

    ids: tuple[str, ...]
    labels: tuple[float, ...] | None


_LABELS = TypeAdapter(dict[str, dict[Literal["dev", "test"], _Labelled]])
