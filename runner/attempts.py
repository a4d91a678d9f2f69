"""Attempts: the folder through which a build and the worker of one leaf talk.

    task.json                what is to be trained
    checkpoint.safetensors   all that the rest of the run depends on, from time to time
    progress.json            how far the run is
    error.json               why it failed, where it did
    log.txt                  what the worker says, over all its starts
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .assembly import Assembly, tabled
from .errors import Place, SpecError
from .files import json_bytes, make_folder, post, remove, write_bytes
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


@dataclass(frozen=True)
class Attempt:
    """Work in progress on one run."""

    folder: Path

    @property
    def checkpoint(self) -> Path:
        """File from which training goes on."""
        return self.folder / "checkpoint.safetensors"

    @property
    def log(self) -> Path:
        """File of what the worker said."""
        return self.folder / "log.txt"

    @property
    def lease(self) -> Path:
        """File of the lease of whoever works on the run."""
        return self.folder.with_name(f"{self.folder.name}.lock")

    def begin(self, order: Order) -> bool:
        """Write what is to be trained and clear what a dead worker left; return whether there is a checkpoint.

        A checkpoint that was made to replace another run, or none, is not gone on from. Raise StorageError.
        """
        make_folder(self.folder)
        for path in self.folder.iterdir():
            if path.name.startswith(".") or path.name == "error.json":
                remove(path)
        if _read(self.folder / "task.json").get("replaces", "") != order.replaces:
            remove(self.checkpoint)
        write_bytes(self.folder / "task.json", order.to_bytes())
        return self.checkpoint.exists()

    def order(self) -> Order:
        """Return what is to be trained. Raise SpecError."""
        path = self.folder / "task.json"
        values, at = json.loads(path.read_bytes()), Place(str(path))
        project = Path(values["project"])
        assembly = Assembly(project)
        model = assembly.part(Model, tabled(values["model"], at), at)
        if model is None:
            raise SpecError(*assembly.problems)
        return Order(values["id"], values["name"], project, model, values["replaces"])

    def report(self, progress: dict[str, Any]) -> None:
        """Tell the build how far the run is."""
        post(self.folder / "progress.json", json.dumps(progress).encode())

    def progress(self) -> dict[str, Any]:
        """Return how far the run is; empty where that is not known."""
        return _read(self.folder / "progress.json")

    def fail(self, code: int, problems: list[str]) -> None:
        """Tell the build why the run failed; where that cannot be written, the exit code and the log must do."""
        post(self.folder / "error.json", json_bytes({"exit_code": code, "problems": problems}))

    def problems(self) -> list[str]:
        """Return why the run failed; empty where the worker could not say."""
        return list(_read(self.folder / "error.json").get("problems", []))


def _read(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        values = json.loads(path.read_bytes())
        return values if isinstance(values, dict) else {}
    return {}
