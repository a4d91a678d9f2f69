"""Training job of one leaf, passed from a build to its worker as task.json in the attempt's folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import DataError, Place, Problem
from ..files import json_bytes, parse_json, reported
from ..part import plain_dump
from ..parts.ensembles import Ensemble
from .identity import fingerprints
from .spec import Model
from .stored_run import build_part, model_of


@dataclass(frozen=True)
class TrainingJob:
    """Model to be trained by a worker, and what it needs for that."""

    id: str
    name: str
    project: Path
    model: Model
    replaces: str = ""
    """sha256 of the manifest of the finished run that this one replaces; empty for none."""
    trees: Mapping[str, Ensemble] = field(default_factory=dict)
    """Ensembles in the teacher of a student, by id."""
    source: Mapping[str, str] = field(default_factory=dict)
    """Fingerprints of the build's code, by file; empty to accept any code."""

    def check_code(self) -> None:
        """Raise DataError where the code on this machine differs from the build's."""
        here = fingerprints(self.model)
        if other := [file for file, code in self.source.items() if here.get(file) != code]:
            raise DataError(Problem(f"the code of {', '.join(other)} is not that which the build was started with",
                                    hint="build again; on a cluster, install one mtrun for all machines"))

    def to_bytes(self) -> bytes:
        """Return the bytes of task.json."""
        return json_bytes({"id": self.id, "name": self.name, "project": str(self.project), "replaces": self.replaces,
                           "source": dict(self.source), "model": plain_dump(self.model), "trees": self.plain_trees()})

    def made_of(self) -> list[str]:
        """Return the ids of the runs that a student, a soup or a model with `start` needs."""
        members = [*self.model.needs, *(child for node in self.trees.values() for child in node.children())]
        return sorted({member.id for member in members} - self.trees.keys())

    def plain_trees(self) -> dict[str, Any]:
        """Return the ensembles as plain JSON: each node with its members as ids, and their names."""
        return {id: {"node": plain_dump(node), "names": {child.id: child.name for child in node.children()}}
                for id, node in self.trees.items()}

    @classmethod
    def read(cls, path: Path) -> TrainingJob:
        """Read the job from task.json. Raise SpecError, or StorageError where it cannot be read."""
        with reported("read", path):
            text = path.read_bytes()
        return cls.from_bytes(text, Place(str(path)))

    @classmethod
    def from_bytes(cls, data: bytes, at: Place) -> TrainingJob:
        """Parse the job from the bytes of task.json. Raise SpecError."""
        values = parse_json(data)
        project = Path(values["project"])
        trees = {id: build_part(Ensemble, tree["node"], at, project, tree["names"])  # type: ignore[type-abstract]
                 for id, tree in values["trees"].items()}
        return cls(values["id"], values["name"], project, model_of(values["model"], at, project), values["replaces"],
                   trees, values["source"])
