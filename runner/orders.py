"""Orders: what a build tells the worker of one leaf, as task.json in the attempt's folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from .assembly import Assembly, tabled
from .errors import Place, SpecError
from .files import json_bytes, reported
from .parts import plain_dump
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

    def to_bytes(self) -> bytes:
        """Return the bytes of task.json."""
        return json_bytes({"id": self.id, "name": self.name, "project": str(self.project), "replaces": self.replaces,
                           "model": plain_dump(self.model)})

    @classmethod
    def read(cls, path: Path) -> Order:
        """Return the order in a file. Raise SpecError, or StorageError where it cannot be read."""
        with reported("read", path):
            text = path.read_bytes()
        values, at = json.loads(text), Place(str(path))
        project = Path(values["project"])
        assembly = Assembly(project)
        model = assembly.part(Model, tabled(values["model"], at), at)
        if model is None:
            raise SpecError(*assembly.problems)
        return cls(values["id"], values["name"], project, model, values["replaces"])
