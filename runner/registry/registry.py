"""Finished runs by id: find, verify, commit, set aside.

    registry/<id>/                 one finished run; it appears by one rename, manifest and all
    registry/.attempts/<id>/       work in progress, as `runner/attempts.py` has it
    registry/.attempts/<id>.lock   the lease of whoever works on it
    registry/.attempts/staged-*/   runs that are being written, or removed
    registry/.builds/              what running commands need, as `runner/reservations.py` has it
    registry/.damaged/             runs that failed a check, set aside
    registry/.replaced/            runs that were trained again though they were sound
    registry/.cache/               what can be made again at any time
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import RegistryError, StorageError
from ..files import make_folder, publish, remove, reported, write_bytes, write_new
from ..tasks.predictions import Predictions
from . import lease as leases
from .manifest import sealed, start, unsealed

FORMAT = 1

MANIFEST = "manifest.json"

PREDICTIONS = "predictions.safetensors"

EPOCHS = "epochs.safetensors"
"""What a leaf that kept its best epoch said of dev after each one."""

WEIGHTS = "model.safetensors"

HISTORY = "history.jsonl"

LOG = "log.txt"

ID = re.compile(r"[0-9a-f]{12}")


def _unread(id: str, path: str | Path, error: OSError) -> RegistryError | StorageError:
    """Return what it means that a file of a run could not be read, which nobody else decides.

    It is damage where something else than a file is there, or nothing. Whatever else the machine refuses, such as
    permission or a read of a bad disk, tells nothing of the run: it is to be left where it is.
    """
    if isinstance(error, FileNotFoundError):
        return RegistryError(f"run {id} is damaged: {path} is missing")
    if isinstance(error, NotADirectoryError | IsADirectoryError):
        return RegistryError(f"run {id} is damaged: {path} cannot be read ({error.strerror})")
    return StorageError(f"cannot read {path}: {error.strerror or error}")


@dataclass(frozen=True)
class Run:
    """A finished run: its manifest, and where it is."""

    id: str
    root: Path
    """The registry."""
    manifest: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self.root / self.id

    @property
    def weights(self) -> str | None:
        """The sha256 of its weights; None where it kept none."""
        entry = self.manifest["files"].get(WEIGHTS)
        return entry and str(entry["sha256"])

    @property
    def digest(self) -> str:
        """Which predictions it has: 12 hex digits over the sha256 of its predictions' files.

        Runs of one id and other digests are replicas: another processor, or another version of torch, made them.
        """
        entries = self.manifest["files"]
        parts = [str(entries[name]["sha256"]) for name in (PREDICTIONS, EPOCHS) if name in entries]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:12]

    def size(self) -> int:
        """Return the bytes of its files."""
        return sum(entry["size"] for entry in self.manifest["files"].values())

    def read(self, name: str) -> bytes:
        """Return one of the run's files after comparing its sha256. Raise RegistryError or StorageError."""
        path, entry = self.folder / name, self.manifest["files"].get(name)
        if entry is None:
            raise RegistryError(f"run {self.id} has no file {name}")
        try:
            data = path.read_bytes()
        except OSError as error:
            raise _unread(self.id, path, error) from error
        if len(data) != entry["size"] or hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise RegistryError(f"run {self.id} is damaged: {path} is not what was written")
        return data

    def check(self) -> None:
        """Read what a tree is made of: its Predictions and those of its epochs. Raise RegistryError or StorageError."""
        for name in (EPOCHS,) * self.has_epochs() + (PREDICTIONS,):
            self.read(name)

    def predictions(self) -> Predictions:
        """Return its Predictions, verified as its epochs' are, for later. Raise RegistryError or StorageError."""
        if self.has_epochs():
            self.read(EPOCHS)
        return Predictions.from_bytes(self.read(PREDICTIONS), str(self.folder / PREDICTIONS))

    def has_epochs(self) -> bool:
        """Tell whether it kept what it said of dev after each epoch."""
        return EPOCHS in self.manifest["files"]

    def epochs(self) -> Predictions:
        """Return its epochs' Predictions of dev side by side, verified. Raise RegistryError or StorageError."""
        return Predictions.from_bytes(self.read(EPOCHS), str(self.folder / EPOCHS))

    def verify(self) -> None:
        """Read all files. Raise RegistryError that names those that are not what was written, else StorageError."""
        errors: list[RegistryError | StorageError] = []
        for name, entry in self.manifest["files"].items():
            path = self.folder / name
            try:
                with path.open("rb") as file:
                    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                    is_same = (file.tell(), sha256) == (entry["size"], entry["sha256"])
            except OSError as error:
                errors.append(_unread(self.id, path, error))
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
        """Folder of what can be made again at any time."""
        return self.root / ".cache"

    @property
    def attempts(self) -> Path:
        """Folder of work in progress."""
        return self.root / ".attempts"

    def attempt(self, id: str) -> Path:
        """Return the folder of the work in progress on a run."""
        return self.attempts / id

    def lease(self, id: str) -> Path:
        """Return the file of the lease of whoever works on a run."""
        return self.attempts / f"{id}.lock"

    def claim(self, id: str) -> contextlib.AbstractContextManager[int | None]:
        """Hold the right to train a run, or get None; it only avoids training twice, nothing is wrong without it."""
        return leases.held(self.lease(id))

    def ids(self) -> list[str]:
        """Return the ids of all finished runs, damaged ones too, sorted."""
        try:
            return sorted(name for name in os.listdir(self.root) if ID.fullmatch(name))
        except FileNotFoundError:
            return []

    def has(self, id: str) -> bool:
        """Tell whether there is a finished run, sound or not."""
        return os.path.lexists(self.root / id)

    def find(self, id: str) -> Run | None:
        """Return a finished run, or None where there is none; raise RegistryError where it is damaged to the eye.

        The manifest is verified, of the other files presence and size only: reading one verifies the rest. Raise
        StorageError where that cannot be told.
        """
        run = self.listed(id)
        for name, entry in run.manifest["files"].items() if run else ():
            path = self.root / id / name
            try:
                status = os.stat(path)
            except OSError as error:
                if not self.has(id):
                    return None  # it was removed at this moment
                raise _unread(id, path, error) from error
            if not stat.S_ISREG(status.st_mode) or status.st_size != entry["size"]:
                raise RegistryError(f"run {id} is damaged: {path} is missing or of another length")
        return run

    def listed(self, id: str) -> Run | None:
        """Return a run from its manifest alone, or None where there is none.

        Raise RegistryError where it is damaged, StorageError where that cannot be told.
        """
        path = f"{self.root}/{id}/{MANIFEST}"
        try:
            data = self._manifest(id)
            if data is None:
                return None
            manifest = unsealed(data)
        except ValueError as error:
            raise RegistryError(f"run {id} is damaged: {path} cannot be read ({error})") from None
        except OSError as error:
            raise _unread(id, path, error) from error
        if manifest["format"] != FORMAT or manifest["id"] != id:
            raise RegistryError(f"run {id} is damaged: {path} is of another run or format")
        return Run(id, self.root, manifest)

    def _manifest(self, id: str) -> bytes | None:
        """Return the bytes of a manifest, or None where there is no run; one may come or go at this moment."""
        with contextlib.suppress(FileNotFoundError):
            return start(f"{self.root}/{id}/{MANIFEST}")
        return start(f"{self.root}/{id}/{MANIFEST}") if os.path.lexists(f"{self.root}/{id}") else None

    def check(self, id: str) -> Run | None:
        """Return a finished run after reading all of it, or None where there is none; raise what `find` raises."""
        run = self.find(id)
        try:
            if run:
                run.verify()
        except RegistryError:
            if self.has(id):
                raise
            return None
        return run

    def runs(self) -> Iterator[Run]:
        """Yield all finished runs by id, without those that are damaged to the eye or cannot be read."""
        for id in self.ids():
            with contextlib.suppress(RegistryError, StorageError):
                if run := self.find(id):
                    yield run

    def set_aside(self, id: str, folder: str = ".damaged") -> None:
        """Move a run out of the way; nothing happens where another process just did."""
        aside = self.root / folder
        make_folder(aside)
        with reported("set aside", self.root / id), contextlib.suppress(FileNotFoundError):
            os.rename(self.root / id, aside / f"{id}.{uuid.uuid4().hex[:8]}")

    def commit(self, id: str, files: Mapping[str, bytes], manifest: Mapping[str, Any], replaces: str = "") -> Run:
        """Publish a run by one rename; where another worker was first, this one is discarded.

        Files are written and synced one by one, the manifest with their sizes and hashes last. `replaces` is the
        sha256 in the manifest of the run that this one takes the place of. Raise StorageError.
        """
        staged = self.attempts / f"staged-{id}-{uuid.uuid4().hex[:8]}"
        entries = {name: {"size": len(d), "sha256": hashlib.sha256(d).hexdigest()} for name, d in files.items()}
        try:
            make_folder(staged)
            for name, data in files.items():
                write_new(staged / name, data)
            write_new(staged / MANIFEST, sealed({**manifest, "format": FORMAT, "id": id, "files": entries}))
            while not publish(staged, self.root / id) and self._is_in_the_way(id, replaces):
                pass
        finally:
            with contextlib.suppress(StorageError):
                remove(staged)
        run = self.find(id)
        if run is None:
            raise RegistryError(f"run {id} was removed while it was committed")
        return run

    def _is_in_the_way(self, id: str, replaces: str) -> bool:
        """Set aside the run that is there if it is damaged or to be replaced; return False where it is to stay.

        Raise StorageError where it cannot be told whether it is damaged.
        """
        try:
            there = self.check(id)
        except RegistryError:
            self.set_aside(id)
            return True
        if there and there.manifest["sha256"] == replaces:
            self.set_aside(id, ".replaced")
            return True
        return there is None

    def drop_weights(self, run: Run) -> None:
        """Remove a run's weights; its Predictions stay. Raise StorageError."""
        kept = {key: value for key, value in run.manifest.items() if key != "sha256"}
        kept["files"] = {name: entry for name, entry in kept["files"].items() if name != WEIGHTS}
        write_bytes(run.folder / MANIFEST, sealed(kept))
        remove(run.folder / WEIGHTS)

    def discard(self, path: Path, id: str) -> Path:
        """Move a run, or work on one, out of reach; return where its files are to be removed. Raise StorageError."""
        trash = self.attempts / f"staged-{id}-{uuid.uuid4().hex[:8]}"
        make_folder(self.attempts)
        with reported("remove", path), contextlib.suppress(FileNotFoundError):
            os.rename(path, trash)
        return trash

    def drop(self, id: str) -> None:
        """Remove a run: it is gone at once, then its files are. Raise StorageError."""
        remove(self.discard(self.root / id, id))
