"""Garbage collection: find and remove files of a registry that nothing refers to."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import RegistryError, StorageError
from ..files import remove
from ..registry import lease as leases
from ..registry.attempt import Attempt
from ..registry.registry import ID, Registry
from ..registry.reservations import StoredReservations
from .retention import Retention

_STAGED = re.compile(r"staged-([0-9a-f]{12})-.*")

_LOCK = re.compile(r"([0-9a-f]{12})\.lock")


@dataclass(frozen=True)
class Garbage:
    """A file or folder that can be removed."""

    path: Path
    why: str
    size: int
    id: str
    """Id of the run that it belongs to; empty where none is known."""


def existing_names(registry: Registry) -> set[str]:
    """Return the names of all runs and of the entries of `.attempts`; read before the references, see `Scan`."""
    names = set(registry.ids())
    with suppress(OSError):
        names.update(os.listdir(registry.attempts))
    return names


@dataclass
class Scan:
    """One scan of a registry for garbage."""

    registry: Registry
    retention: Retention
    reservations: StoredReservations
    known: Collection[str]
    """The `existing_names` from before the references were read; newer entries are never garbage."""
    unread: list[str] = field(default_factory=list)
    """Messages about what could not be read, and so is kept."""

    def garbage(self) -> Iterator[Garbage]:
        """Yield the garbage; never what a running process, a spec or a published result needs."""
        for folder, why in ((".damaged", "a damaged run, set aside"), (".replaced", "a run that was trained again")):
            for path in self._entries(self.registry.root / folder):
                yield Garbage(path, why, _size(path), path.name[:12])
        for path in self._entries(self.registry.attempts):
            if path.name in self.known:
                yield from self._check_attempt_entry(path)
        for id in self.registry.ids():
            if id in self.known:
                yield from self._check_run(id)

    def _check_run(self, id: str) -> Iterator[Garbage]:
        """Yield a run where it is garbage; damaged ones are left to the build that needs them."""
        try:
            run = self.registry.find_by_manifest(id)
        except RegistryError:
            return
        except StorageError as error:
            self.unread.append(str(error))
            return
        if (run and not self.retention.keep(id, run.manifest["name"], run.manifest["spec"])
                and not self.reservations.covering(id)):
            why = f"the run `{run.manifest['name']}`, to which no spec or result refers"
            yield Garbage(run.folder, why, _size(run.folder), id)

    def _check_attempt_entry(self, path: Path) -> Iterator[Garbage]:
        """Yield an entry of `.attempts` where it is garbage; attempts of detached builds are not."""
        id, why = "", "left by a build that died"
        if match := _STAGED.fullmatch(path.name) or _LOCK.fullmatch(path.name):
            id = match[1]
        elif ID.fullmatch(path.name):
            id, why = path.name, self._why_attempt_is_garbage(path)
        lease = self.registry.lease(id)
        if why and (not id or (leases.holder(lease) is None and not self.reservations.covering(id))):
            yield Garbage(path, why, _size(path), id)

    def _why_attempt_is_garbage(self, path: Path) -> str:
        """Return why an attempt is garbage; an empty string where it is not."""
        attempt = Attempt(path)
        if self.registry.has(path.name):
            return "work on a run that is finished"
        try:
            attempt.check()
        except StorageError as error:
            self.unread.append(str(error))
            return ""
        if self.retention.keep(path.name, attempt.name(), attempt.model()) or attempt.job()[0]:
            return ""
        return f"work on `{attempt.name()}`, to which no spec refers"

    def _entries(self, folder: Path) -> list[Path]:
        """Return the sorted entries of a folder; empty where it is missing."""
        try:
            return sorted(folder.iterdir())
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                self.unread.append(f"cannot read {folder}: {error.strerror}")
            return []


def move_away(registry: Registry, garbage: Garbage) -> Path | None:
    """Move garbage to a folder for removal and return that; None where another process holds the run's lease.

    The caller holds `reservations.removal`. Raise StorageError.
    """
    if not garbage.id:
        return garbage.path
    with registry.claim(garbage.id) as lease:
        if lease is None:
            return None
        if garbage.path.suffix == ".lock":
            remove(garbage.path)
            return garbage.path
        return registry.discard(garbage.path, garbage.id)


def delete(registry: Registry, garbage: Garbage, path: Path) -> None:
    """Delete what `move_away` returned, unless another process holds the run's lease. Raise StorageError."""
    with registry.claim(garbage.id) if garbage.id else nullcontext(0) as lease:
        if lease is not None:
            remove(path)


def _size(path: Path) -> int:
    """Return the size in bytes of a file, or of all files in a folder; files that are removed meanwhile count as 0."""
    size = 0
    inside = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
    for file in [path] if path.is_file() else list(inside):
        with suppress(OSError):
            size += file.lstat().st_size
    return size
