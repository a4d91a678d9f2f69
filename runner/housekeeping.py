"""Garbage: what a registry holds that nothing refers to."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import leases
from .attempts import Attempt
from .errors import RegistryError
from .files import remove
from .registry import ID, Registry
from .retention import Retention

_STAGED = re.compile(r"staged-([0-9a-f]{12})-[0-9a-f]{8}")
_LOCK = re.compile(r"([0-9a-f]{12})\.lock")


@dataclass(frozen=True)
class Garbage:
    """Something that can be removed."""

    path: Path
    why: str
    size: int
    id: str
    """The run that it belongs to."""


def garbage(registry: Registry, retention: Retention) -> Iterator[Garbage]:
    """Yield what can be removed; never what a live attempt, a spec or a published result needs."""
    for folder, why in ((".damaged", "a damaged run, set aside"), (".replaced", "a run that was trained again")):
        for path in _inside(registry.root / folder):
            yield Garbage(path, why, _size(path), path.name[:12])
    for path in _inside(registry.attempts):
        yield from _of_attempts(registry, retention, path)
    for id in registry.ids():
        try:
            run = registry.listed(id)
        except RegistryError:
            continue  # it is set aside by the build that needs it
        if run and not retention.keep(id, run.manifest["name"], run.manifest["spec"]):
            why = f"the run `{run.manifest['name']}`, to which no spec or result refers"
            yield Garbage(run.folder, why, _size(run.folder), id)


def _of_attempts(registry: Registry, retention: Retention, path: Path) -> Iterator[Garbage]:
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
    if not id or leases.holder(registry.lease(id)) is None:
        yield Garbage(path, why, _size(path), id)


def sweep(registry: Registry, found: Garbage) -> bool:
    """Remove a piece of garbage; return False where somebody works on its run. Raise StorageError."""
    if not found.id:
        remove(found.path)
        return True
    with registry.claim(found.id) as lease:
        if lease is None:
            return False
        if found.path.parent == registry.root:
            registry.drop(found.id)
        else:
            remove(found.path)
    return True


def _inside(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _size(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [Path(here, name) for here, _, names in os.walk(path) for name in names]
    return sum(file.lstat().st_size for file in files)
