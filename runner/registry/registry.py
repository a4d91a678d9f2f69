"""Finished runs by id: find, verify, commit, set aside.

    registry/<id>/                 one finished run, published by a single rename
    registry/.attempts/<id>/       a training in progress (`attempt.py`)
    registry/.attempts/<id>.lock   its lease (`lease.py`)
    registry/.attempts/staged-*/   runs that are being written or removed
    registry/.builds/              reservations of running commands (`reservations.py`)
    registry/.damaged/             runs that failed a check
    registry/.replaced/            sound runs that were trained again
    registry/.cache/               files that can be computed again at any time
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import RegistryError, StorageError
from ..files import make_folder, publish, remove, reported, write_bytes, write_new
from ..tasks.predictions import Predictions
from .lease import held
from .manifest import json_with_checksum, parse_manifest, read_start

FORMAT = 1

MANIFEST = "manifest.json"

PREDICTIONS = "predictions.safetensors"

EPOCHS = "epochs.safetensors"
"""Predictions on dev after each epoch, of a leaf with `select = "best"`."""

WEIGHTS = "model.safetensors"

HISTORY = "history.jsonl"

LOG = "log.txt"

ID = re.compile(r"[0-9a-f]{12}")


def _read_error(id: str, path: str | Path, error: OSError) -> RegistryError | StorageError:
    """Return the error for a file of a run that could not be read.

    It is damage (RegistryError) where the file is missing or not a file. Other failures, such as permissions or a bad
    disk, do not show that the run is damaged (StorageError): it stays where it is.
    """
    if isinstance(error, FileNotFoundError):
        return RegistryError(f"run {id} is damaged: {path} is missing")
    if isinstance(error, NotADirectoryError | IsADirectoryError):
        return RegistryError(f"run {id} is damaged: {path} cannot be read ({error.strerror})")
    return StorageError(f"cannot read {path}: {error.strerror or error}")


@dataclass(frozen=True)
class Run:
    """A finished run: id, registry and manifest."""

    id: str
    root: Path
    """Folder of the registry."""
    manifest: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return self.root / self.id

    @property
    def weights(self) -> str | None:
        """Sha256 of the weights; None where they were not kept."""
        entry = self.manifest["files"].get(WEIGHTS)
        return entry and str(entry["sha256"])

    @property
    def digest(self) -> str:
        """Identity of the predictions: 12 hex digits over the sha256 of the predictions files.

        Runs of one id with different digests are replicas, made on another processor or by another version of torch.
        """
        entries = self.manifest["files"]
        parts = [str(entries[name]["sha256"]) for name in (PREDICTIONS, EPOCHS) if name in entries]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:12]

    def size(self) -> int:
        """Return the total size of the files in bytes."""
        return sum(entry["size"] for entry in self.manifest["files"].values())

    def read(self, name: str) -> bytes:
        """Return the content of a file after verifying its sha256. Raise RegistryError or StorageError."""
        path, entry = self.folder / name, self.manifest["files"].get(name)
        if entry is None:
            raise RegistryError(f"run {self.id} has no file {name}")
        try:
            data = path.read_bytes()
        except OSError as error:
            raise _read_error(self.id, path, error) from error
        if len(data) != entry["size"] or hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise RegistryError(f"run {self.id} is damaged: {path} is not what was written")
        return data

    def check(self) -> None:
        """Verify the predictions files, those of the epochs too. Raise RegistryError or StorageError."""
        for name in (EPOCHS,) * self.has_epochs() + (PREDICTIONS,):
            self.read(name)

    def predictions(self) -> Predictions:
        """Return the Predictions; verify those of the epochs as well. Raise RegistryError or StorageError."""
        if self.has_epochs():
            self.read(EPOCHS)
        return Predictions.from_bytes(self.read(PREDICTIONS), str(self.folder / PREDICTIONS))

    def has_epochs(self) -> bool:
        """Return whether predictions on dev after each epoch were kept."""
        return EPOCHS in self.manifest["files"]

    def epochs(self) -> Predictions:
        """Return the verified Predictions on dev of all epochs, side by side. Raise RegistryError or StorageError."""
        return Predictions.from_bytes(self.read(EPOCHS), str(self.folder / EPOCHS))

    def check_sizes(self) -> None:
        """Verify presence and size of all files, not their content. Raise RegistryError or StorageError."""
        for name, entry in self.manifest["files"].items():
            path = self.folder / name
            try:
                status = os.stat(path)
            except OSError as error:
                raise _read_error(self.id, path, error) from error
            if not stat.S_ISREG(status.st_mode) or status.st_size != entry["size"]:
                raise RegistryError(f"run {self.id} is damaged: {path} is missing or of another length")

    def verify(self) -> None:
        """Verify all files. Raise RegistryError naming every damaged one, else StorageError for unreadable ones."""
        errors: list[RegistryError | StorageError] = []
        for name, entry in self.manifest["files"].items():
            path = self.folder / name
            try:
                with path.open("rb") as file:
                    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                    is_same = (file.tell(), sha256) == (entry["size"], entry["sha256"])
            except OSError as error:
                errors.append(_read_error(self.id, path, error))
                continue
            if not is_same:
                errors.append(RegistryError(f"run {self.id} is damaged: {path} is not what was written"))
        problems = [problem for error in errors for problem in error.problems]
        if any(isinstance(error, RegistryError) for error in errors):
            raise RegistryError(*problems)
        if errors:
            raise StorageError(*problems)


@dataclass(frozen=True)
class Registry:
    """The runs of one project."""

    root: Path

    @property
    def cache(self) -> Path:
        """Folder of files that can be computed again at any time."""
        return self.root / ".cache"

    @property
    def attempts(self) -> Path:
        """Folder of the attempts."""
        return self.root / ".attempts"

    def attempt(self, id: str) -> Path:
        """Return the folder of the attempt at a run."""
        return self.attempts / id

    def lease(self, id: str) -> Path:
        """Return the path of a run's lease."""
        return self.attempts / f"{id}.lock"

    def claim(self, id: str) -> contextlib.AbstractContextManager[int | None]:
        """Context manager of a run's lease: its descriptor, or None where another process holds it."""
        return held(self.lease(id))

    def ids(self) -> list[str]:
        """Return the sorted ids of all finished runs, including damaged ones."""
        try:
            return sorted(name for name in os.listdir(self.root) if ID.fullmatch(name))
        except FileNotFoundError:
            return []

    def has(self, id: str) -> bool:
        """Return whether there is a finished run, damaged or not."""
        return os.path.lexists(self.root / id)

    def find(self, id: str) -> Run | None:
        """Return a finished run, or None where there is none.

        Verifies the manifest, and presence and size of the other files; their content is verified when it is read.
        Raise RegistryError where the run is damaged, StorageError where it cannot be read.
        """
        return self._checked(id, Run.check_sizes)

    def find_by_manifest(self, id: str) -> Run | None:
        """Return a finished run from its manifest without a look at the other files, or None where there is none.

        Raise RegistryError where the manifest is damaged, StorageError where it cannot be read.
        """
        path = f"{self.root}/{id}/{MANIFEST}"
        try:
            data = self._manifest_bytes(id)
            if data is None:
                return None
            manifest = parse_manifest(data)
        except ValueError as error:
            raise RegistryError(f"run {id} is damaged: {path} cannot be read ({error})") from None
        except OSError as error:
            raise _read_error(id, path, error) from error
        if manifest["format"] != FORMAT or manifest["id"] != id:
            raise RegistryError(f"run {id} is damaged: {path} is of another run or format")
        return Run(id, self.root, manifest)

    def _manifest_bytes(self, id: str) -> bytes | None:
        """Return the bytes of a manifest, or None where there is no run; it may be published or removed meanwhile."""
        with contextlib.suppress(FileNotFoundError):
            return read_start(f"{self.root}/{id}/{MANIFEST}")
        return read_start(f"{self.root}/{id}/{MANIFEST}") if os.path.lexists(f"{self.root}/{id}") else None

    def check(self, id: str) -> Run | None:
        """Return a finished run after verifying all of its files, or None where there is none; raise as `find` does."""
        def check_files(run: Run) -> None:
            run.check_sizes()
            run.verify()

        return self._checked(id, check_files)

    def _checked(self, id: str, check: Callable[[Run], None]) -> Run | None:
        """Return a finished run that passes a check, or None where there is none; raise as `find` does.

        The run may be removed, replaced or lose its weights meanwhile. So it is damaged only if the check fails twice
        under one manifest.
        """
        seen = ""
        while run := self.find_by_manifest(id):
            try:
                check(run)
                return run
            except (RegistryError, StorageError) as error:
                if not self.has(id):
                    return None
                if isinstance(error, StorageError) or run.manifest["sha256"] == seen:
                    raise
                seen = run.manifest["sha256"]
        return None

    def runs(self) -> Iterator[Run]:
        """Yield all finished runs by id, except those for which `find` raises an error."""
        for id in self.ids():
            with contextlib.suppress(RegistryError, StorageError):
                if run := self.find(id):
                    yield run

    def set_aside(self, id: str, folder: str = ".damaged") -> None:
        """Move a run into another folder of the registry; no-op where it is gone already."""
        aside = self.root / folder
        make_folder(aside)
        with reported("set aside", self.root / id), contextlib.suppress(FileNotFoundError):
            os.rename(self.root / id, aside / f"{id}.{uuid.uuid4().hex[:8]}")

    def commit(self, id: str, files: Mapping[str, bytes], manifest: Mapping[str, Any], replaces: str = "") -> Run:
        """Publish a run by one rename and return it; where a sound run is there already, return that one.

        Files are written and synced one by one, the manifest with their sizes and hashes last. `replaces` is the
        `sha256` in the manifest of the run that this one is to replace. Raise StorageError.
        """
        staged = self.attempts / f"staged-{id}-{uuid.uuid4().hex[:8]}"
        entries = {name: {"size": len(d), "sha256": hashlib.sha256(d).hexdigest()} for name, d in files.items()}
        try:
            make_folder(staged)
            for name, data in files.items():
                write_new(staged / name, data)
            write_new(staged / MANIFEST, json_with_checksum({**manifest, "format": FORMAT, "id": id, "files": entries}))
            while not publish(staged, self.root / id) and self._make_way(id, replaces):
                pass
        finally:
            with contextlib.suppress(StorageError):
                remove(staged)
        run = self.find(id)
        if run is None:
            raise RegistryError(f"run {id} was removed while it was committed")
        return run

    def _make_way(self, id: str, replaces: str) -> bool:
        """Set aside the present run if it is damaged or to be replaced; return False where it stays.

        Raise StorageError where it cannot be read.
        """
        try:
            present = self.check(id)
        except RegistryError:
            self.set_aside(id)
            return True
        if present and present.manifest["sha256"] == replaces:
            self.set_aside(id, ".replaced")
            return True
        return present is None

    def drop_weights(self, run: Run) -> None:
        """Remove a run's weights and their entry in the manifest. Raise StorageError."""
        kept = {key: value for key, value in run.manifest.items() if key != "sha256"}
        kept["files"] = {name: entry for name, entry in kept["files"].items() if name != WEIGHTS}
        write_bytes(run.folder / MANIFEST, json_with_checksum(kept))
        remove(run.folder / WEIGHTS)

    def discard(self, path: Path, id: str) -> Path:
        """Move a run or an attempt to a new folder for removal; return that folder. Raise StorageError."""
        trash = self.attempts / f"staged-{id}-{uuid.uuid4().hex[:8]}"
        make_folder(self.attempts)
        with reported("remove", path), contextlib.suppress(FileNotFoundError):
            os.rename(path, trash)
        return trash

    def drop(self, id: str) -> None:
        """Remove a run: rename its folder, then delete the files. Raise StorageError."""
        remove(self.discard(self.root / id, id))
