"""Garbage: what a registry holds that nothing refers to."""

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
from ..registry.reservations import Needs
from .retention import Retention

_STAGED = re.compile(r"staged-([0-9a-f]{12})-.*")

_LOCK = re.compile(r"([0-9a-f]{12})\.lock")


@dataclass(frozen=True)
class Garbage:
    """Something that can be removed."""

    path: Path
    why: str
    size: int
    id: str
    """The run that it belongs to."""


def present(registry: Registry) -> set[str]:
    """Return the names of what is there: whatever comes after the references were read is not looked at."""
    there = set(registry.ids())
    with suppress(OSError):
        there.update(os.listdir(registry.attempts))
    return there


@dataclass
class Survey:
    """One look at all that is there and can be removed."""

    registry: Registry
    retention: Retention
    needs: Needs
    known: Collection[str]
    """What was there before the references were read."""
    unread: list[str] = field(default_factory=list)
    """What the machine refused to read, and which stays."""

    def garbage(self) -> Iterator[Garbage]:
        """Yield what can be removed; never what a live process, a spec or a published result needs."""
        for folder, why in ((".damaged", "a damaged run, set aside"), (".replaced", "a run that was trained again")):
            for path in self._inside(self.registry.root / folder):
                yield Garbage(path, why, _size(path), path.name[:12])
        for path in self._inside(self.registry.attempts):
            if path.name in self.known:
                yield from self._of_attempts(path)
        for id in self.registry.ids():
            if id in self.known:
                yield from self._of_runs(id)

    def _of_runs(self, id: str) -> Iterator[Garbage]:
        """Yield a run where it is garbage; a damaged one is set aside by the build that needs it."""
        try:
            run = self.registry.listed(id)
        except RegistryError:
            return
        except StorageError as error:
            self.unread.append(str(error))
            return
        if run and not self.retention.keep(id, run.manifest["name"], run.manifest["spec"]) and not self.needs.who(id):
            why = f"the run `{run.manifest['name']}`, to which no spec or result refers"
            yield Garbage(run.folder, why, _size(run.folder), id)

    def _of_attempts(self, path: Path) -> Iterator[Garbage]:
        """Yield a file or folder of `.attempts` where it is garbage; work that was left to an engine is none."""
        id, why = "", "left by a build that died"
        if match := _STAGED.fullmatch(path.name) or _LOCK.fullmatch(path.name):
            id = match[1]
        elif ID.fullmatch(path.name):
            id, why = path.name, self._of_work(path)
        if why and (not id or (leases.holder(self.registry.lease(id)) is None and not self.needs.who(id))):
            yield Garbage(path, why, _size(path), id)

    def _of_work(self, path: Path) -> str:
        """Return why work in progress is garbage; an empty string where it is none."""
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

    def _inside(self, folder: Path) -> list[Path]:
        """Return what is in a folder; nothing where there is none."""
        try:
            return sorted(folder.iterdir())
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                self.unread.append(f"cannot read {folder}: {error.strerror}")
            return []


def take(registry: Registry, found: Garbage) -> Path | None:
    """Move a piece of garbage to where nobody needs it and return the place; None where somebody works on its run.

    To be called by the one who removes. Raise StorageError.
    """
    if not found.id:
        return found.path
    with registry.claim(found.id) as lease:
        if lease is None:
            return None
        if found.path.suffix == ".lock":
            remove(found.path)
            return found.path
        return registry.discard(found.path, found.id)


def clear(registry: Registry, found: Garbage, place: Path) -> None:
    """Remove what was taken away, unless another process is at it. Raise StorageError."""
    with registry.claim(found.id) if found.id else nullcontext(0) as lease:
        if lease is not None:
            remove(place)


def _size(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder; what is removed meanwhile has none."""
    size = 0
    for file in [path] if path.is_file() else [Path(here, name) for here, _, names in os.walk(path) for name in names]:
        with suppress(OSError):
            size += file.lstat().st_size
    return size
