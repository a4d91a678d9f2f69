"""Garbage: what a registry holds that nothing refers to."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import leases
from .attempts import Attempt
from .errors import MtrunError, RegistryError, SpecError
from .files import remove
from .plan import make
from .registry import ID, Registry

_WORD = re.compile(rb"\b[0-9a-f]{12}\b")
_STAGED = re.compile(r"staged-([0-9a-f]{12})-[0-9a-f]{8}")
_LOCK = re.compile(r"([0-9a-f]{12})\.lock")


NAMED = 3
"""How many names are told."""


@dataclass
class References:
    """What keeps a run: published results, specs under every profile, `run:ID` in a spec."""

    ids: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    """Names of specs whose ids cannot be told, since their data are missing: they keep every run of such a name."""
    missing: dict[str, list[str]] = field(default_factory=dict)
    """What is missing -> the names that had to do for that."""

    @classmethod
    def of(cls, project: Path) -> References:
        """Return all references of a project."""
        found = cls()
        for path in [*project.glob("results/**/*.json"), *project.glob("specs/**/*.toml")]:
            found.ids.update(word.decode() for word in _WORD.findall(path.read_bytes()))
        kinds = {"profiles", "suites"}
        specs = [path for path in sorted(project.glob("specs/**/*.toml"))
                 if not kinds & set(path.relative_to(project / "specs").parts[:-1])]
        for profile in sorted(path.stem for path in project.glob("specs/profiles/*.toml")):
            found._add(project, specs, profile)
        return found

    def _add(self, project: Path, specs: Sequence[Path], profile: str) -> None:
        """Add the ids of specs under a profile, all at once or else one by one."""
        try:
            self.ids.update(make(project, specs, profile).nodes)
        except MtrunError as error:
            if len(specs) > 1:
                for spec in specs:
                    self._add(project, [spec], profile)
                return
            self.names.add(specs[0].stem)
            if not isinstance(error, SpecError):  # of specs, those that stand under others are not whole by themselves
                names = self.missing.setdefault(error.problems[0].message, [])
                names += [] if specs[0].stem in names else [specs[0].stem]

    @property
    def notes(self) -> list[str]:
        """Why names had to do, a line for each thing that is missing."""
        return [f"{what}: every run of the name {_listed(names)} is kept" for what, names in self.missing.items()]

    def keep(self, id: str, name: str) -> bool:
        """Tell whether a run is referred to, or may be."""
        return id in self.ids or any(name == spec or name.startswith(f"{spec}-") for spec in self.names)


def _listed(names: Sequence[str]) -> str:
    """Return the first names, and how many others there are."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" or {more} others" if more > 0 else "")


@dataclass(frozen=True)
class Garbage:
    """Something that can be removed."""

    path: Path
    why: str
    size: int
    id: str
    """The run that it belongs to."""


def garbage(registry: Registry, references: References) -> Iterator[Garbage]:
    """Yield what can be removed; never what a live attempt, a spec or a published result needs."""
    for folder, why in ((".damaged", "a damaged run, set aside"), (".replaced", "a run that was trained again")):
        for path in _inside(registry.root / folder):
            yield Garbage(path, why, _size(path), path.name[:12])
    for path in _inside(registry.attempts):
        yield from _of_attempts(registry, references, path)
    for id in registry.ids():
        try:
            run = registry.listed(id)
        except RegistryError:
            continue  # it is set aside by the build that needs it
        if run and not references.keep(id, run.manifest["name"]):
            why = f"the run `{run.manifest['name']}`, to which no spec or result refers"
            yield Garbage(run.folder, why, _size(run.folder), id)


def _of_attempts(registry: Registry, references: References, path: Path) -> Iterator[Garbage]:
    """Yield a file or folder of `.attempts` where it is garbage; work that was left to an engine is none."""
    if match := _STAGED.fullmatch(path.name) or _LOCK.fullmatch(path.name):
        id, why = match[1], "left by a build that died"
    elif ID.fullmatch(path.name):
        id, name = path.name, Attempt(path).name()
        is_finished = (registry.root / id).exists()
        if not is_finished and (references.keep(id, name) or Attempt(path).job()[0]):
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
