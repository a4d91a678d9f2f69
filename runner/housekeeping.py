"""Garbage: what a registry holds that nothing refers to."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from . import leases
from .attempts import Attempt
from .errors import RegistryError
from .files import remove
from .registry import ID, Registry
from .reservations import Needs
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
    return {*registry.ids(), *(path.name for path in _inside(registry.attempts))}


def garbage(registry: Registry, retention: Retention, needs: Needs, known: Collection[str]) -> Iterator[Garbage]:
    """Yield what of `known` can be removed; never what a live process, a spec or a published result needs."""
    for folder, why in ((".damaged", "a damaged run, set aside"), (".replaced", "a run that was trained again")):
        for path in _inside(registry.root / folder):
            yield Garbage(path, why, _size(path), path.name[:12])
    for path in _inside(registry.attempts):
        if path.name in known:
            yield from _of_attempts(registry, retention, needs, path)
    for id in registry.ids():
        try:
            run = registry.listed(id) if id in known else None
        except RegistryError:
            continue  # it is set aside by the build that needs it
        if run and not retention.keep(id, run.manifest["name"], run.manifest["spec"]) and not needs.who(id):
            why = f"the run `{run.manifest['name']}`, to which no spec or result refers"
            yield Garbage(run.folder, why, _size(run.folder), id)


def _of_attempts(registry: Registry, retention: Retention, needs: Needs, path: Path) -> Iterator[Garbage]:
    """Yield a file or folder of `.attempts` where it is garbage; work that was left to an engine is none."""
    if match := _STAGED.fullmatch(path.name) or _LOCK.fullmatch(path.name):
        id, why = match[1], "left by a build that died"
    elif ID.fullmatch(path.name):
        id, attempt = path.name, Attempt(path)
        name = attempt.name()
        is_finished = (registry.root / id).exists()
        if not is_finished and (retention.keep(id, name, attempt.model()) or attempt.job()[0]):
            return
        why = "work on a run that is finished" if is_finished else f"work on `{name}`, to which no spec refers"
    else:
        id, why = "", "left by a build that died"
    if not id or (leases.holder(registry.lease(id)) is None and not needs.who(id)):
        yield Garbage(path, why, _size(path), id)


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


def _inside(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _size(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder; what is removed meanwhile has none."""
    size = 0
    for file in [path] if path.is_file() else [Path(here, name) for here, _, names in os.walk(path) for name in names]:
        with suppress(OSError):
            size += file.lstat().st_size
    return size
