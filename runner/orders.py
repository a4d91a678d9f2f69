"""Orders: what a build tells the worker of one leaf, as task.json in the attempt's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .assembly import Assembly, tabled
from .errors import DataError, Place, Problem, SpecError
from .files import json_bytes, reported
from .parts import plain_dump
from .provenance import fingerprints
from .spec import Model


@dataclass(frozen=True)
class Order:
    """What a worker is to train."""

    id: str
    name: str
    project: Path
    model: Model
    replaces: str = ""
    """sha256 of the manifest of the finished run that is trained again."""
    source: Mapping[str, str] = field(default_factory=dict)
    """Hashes of the code that the build has; none where any will do."""

    def check_code(self) -> None:
        """Raise DataError where the code here is not the build's: it was changed, or this machine has another one."""
        here = fingerprints(self.model)
        if other := [file for file, code in self.source.items() if here.get(file) != code]:
            raise DataError(Problem(f"the code of {', '.join(other)} is not that which the build was started with",
                                    hint="build again; on a cluster, install one mtrun for all machines"))

    def to_bytes(self) -> bytes:
        """Return the bytes of task.json."""
        return json_bytes({"id": self.id, "name": self.name, "project": str(self.project), "replaces": self.replaces,
                           "source": dict(self.source), "model": plain_dump(self.model)})

    @classmethod
    def read(cls, path: Path) -> Order:
        """Return the order in a file. Raise SpecError, or StorageError where it cannot be read."""
        with reported("read", path):
            text = path.read_bytes()
        return cls.from_bytes(text, Place(str(path)))

    @classmethod
    def from_bytes(cls, data: bytes, at: Place) -> Order:
        """Return the order in the bytes of task.json. Raise SpecError."""
        values = json.loads(data)
        project = Path(values["project"])
        assembly = Assembly(project)
        model = assembly.part(Model, tabled(values["model"], at), at)
        if model is None:
            raise SpecError(*assembly.problems)
        return cls(values["id"], values["name"], project, model, values["replaces"], values["source"])
