"""Finished runs by id: find, stage, commit, verify.

    registry/<id>/             one finished run; it appears by one rename, manifest and all
    registry/.attempts/<id>/   work in progress: task.json, checkpoint.safetensors, history.jsonl, log.txt, staged/
    registry/.damaged/         runs that failed a check, set aside
    registry/.cache/           token ids by content
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import RegistryError
from .files import json_bytes, lock, remove, reported, sha256, sync_folder, write_new
from .predictions import Predictions

FORMAT = 1
MANIFEST = "manifest.json"
PREDICTIONS = "predictions.safetensors"
WEIGHTS = "model.safetensors"
ID = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True)
class Run:
    """A finished run: its folder and its manifest."""

    id: str
    folder: Path
    manifest: Mapping[str, Any]

    def checked(self, name: str) -> Path:
        """Return the path of one of the run's files after comparing size and sha256. Raise RegistryError."""
        path, entry = self.folder / name, self.manifest["files"].get(name)
        if entry is None:
            raise RegistryError(f"run {self.id} has no file {name}")
        if not path.is_file() or path.stat().st_size != entry["size"] or sha256(path) != entry["sha256"]:
            raise RegistryError(f"run {self.id} is damaged: {path} is not what was written")
        return path

    def predictions(self) -> Predictions:
        """Return the run's Predictions, verified. Raise RegistryError."""
        return Predictions.read(self.checked(PREDICTIONS))


@dataclass(frozen=True)
class Registry:
    """The runs of one project."""

    root: Path

    @property
    def cache(self) -> Path:
        """Folder of what can be made again at any time."""
        return self.root / ".cache"

    def attempt(self, id: str) -> Path:
        """Return the folder of the work in progress on a run."""
        return self.root / ".attempts" / id

    def claim(self, id: str) -> contextlib.AbstractContextManager[bool]:
        """Hold the right to train a run; it only avoids training twice, nothing is wrong without it."""
        return lock(self.root / ".attempts" / f"{id}.lock")

    def find(self, id: str) -> Run | None:
        """Return a finished run, or None where there is none. Raise RegistryError where its manifest is damaged."""
        folder = self.root / id
        if not folder.is_dir():
            return None
        try:
            manifest = json.loads((folder / MANIFEST).read_bytes())
            sizes = {name: entry["size"] for name, entry in manifest["files"].items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise RegistryError(f"run {id} is damaged: {folder / MANIFEST} cannot be read ({error})") from error
        if manifest.get("format") != FORMAT or manifest.get("id") != id:
            raise RegistryError(f"run {id} is damaged: {folder / MANIFEST} is of another run or format")
        for name, size in sizes.items():
            if not (folder / name).is_file() or (folder / name).stat().st_size != size:
                raise RegistryError(f"run {id} is damaged: {folder / name} is missing or of another length")
        return Run(id, folder, manifest)

    def runs(self) -> Iterator[Run]:
        """Yield all finished runs by id."""
        for folder in sorted(self.root.glob("*")):
            if ID.fullmatch(folder.name) and (run := self.find(folder.name)):
                yield run

    def set_aside(self, id: str) -> Path:
        """Move a damaged run out of the way and return where it lies now."""
        folder = self.root / ".damaged"
        with reported("set aside", self.root / id):
            folder.mkdir(exist_ok=True)
            number = next(n for n in range(10**6) if not (folder / f"{id}.{n}").exists())
            return (self.root / id).rename(folder / f"{id}.{number}")

    def commit(self, id: str, files: Mapping[str, bytes], manifest: Mapping[str, Any]) -> Run:
        """Publish a run by one rename; where another worker was first, this one is discarded.

        Files are written and synced one by one, the manifest with their sizes and hashes last.
        """
        staged = self.attempt(id) / "staged"
        remove(staged)
        with reported("stage", staged):
            staged.mkdir(parents=True)
        for name, data in files.items():
            write_new(staged / name, data)
        entries = {name: {"size": len(data), "sha256": sha256(staged / name)} for name, data in files.items()}
        write_new(staged / MANIFEST, json_bytes({**manifest, "format": FORMAT, "id": id, "files": entries}))
        with reported("publish", self.root / id):
            sync_folder(staged)
            with contextlib.suppress(FileExistsError, OSError) if (self.root / id).exists() else contextlib.nullcontext():
                staged.rename(self.root / id)
            sync_folder(self.root)
        run = self.find(id)
        assert run is not None
        return run
