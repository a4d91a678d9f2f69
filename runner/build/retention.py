"""Retention: what keeps runs from being garbage, which are published results and the specs under every profile.

Where the ids of a spec cannot be told, since data are missing or it has problems, its name has to do. Where a file
cannot be read, nothing is known of what it refers to, and every run is kept.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import MtrunError, SpecError
from ..plan.plan import Plan
from ..plan.planner import make_plan
from ..project import Project
from ..specs import toml
from ..specs.spec import Leaf
from ..specs.spec_files import SpecFiles
from ..specs.sweep import is_point

PRECISIONS = ("fp32", "bf16")
"""What `precision = "auto"` becomes on one machine or another."""

NAMED = 3
"""How many names are told."""

_WORD = re.compile(rb"\b[0-9a-f]{12}\b")

SuiteKey = tuple[str, str]
"""Type and name of a suite."""


@dataclass
class Retention:
    """What keeps a run: published results, specs under every profile, `run:ID` in a spec."""

    ids: set[str] = field(default_factory=set)
    names: dict[str, set[SuiteKey | None]] = field(default_factory=dict)
    """Names of specs whose ids cannot be told under some profile -> the suites that they stand on there, None where
    that is not known either."""
    suites: set[SuiteKey] = field(default_factory=set)
    """All suites that specs stand on."""
    unread: dict[str, str] = field(default_factory=dict)
    """What cannot be read, so that every run is kept -> why."""
    missing: dict[str, list[str]] = field(default_factory=dict)
    """What is missing -> the names that had to do for that."""
    wrong: dict[Path, list[str]] = field(default_factory=dict)
    """Specs that have problems -> the profiles under which they do."""
    quiet: set[Path] = field(default_factory=set)
    """Specs of which no problem is told, since they are whole under some profile, or others stand on them."""

    @classmethod
    def of(cls, project: Path) -> Retention:
        """Return all that keeps runs of a project."""
        found = cls()
        found.add_results(project)
        specs, profiles = found._specs(project)
        if not profiles:
            found._cannot_read(Project(project).profiles, "there is no profile in it")
        for profile in profiles:
            found._add(project, specs, profile)
        found.quiet |= {path for path, under in found.wrong.items() if len(under) < len(profiles)}
        return found

    def add_results(self, project: Path) -> None:
        """Add the ids in published results."""
        for path in self._files(Project(project).results, ".json"):
            self._add_words(path)

    def _specs(self, project: Path) -> tuple[dict[Path, str], list[str]]:
        """Return the names that specs give themselves, and those of the profiles; add the ids in all of them."""
        specs, profiles = dict[Path, str](), list[str]()
        todo = list(self._files(Project(project).specs, ".toml"))
        seen = {os.path.realpath(path) for path in todo}
        for path in todo:
            if not self._add_words(path) or path.name.startswith("."):
                continue
            is_profile = path.parent == Project(project).profiles
            profiles += [path.stem] * is_profile
            try:
                table = toml.read(path)
            except SpecError as error:
                if not is_profile:  # under a broken profile no spec can be planned, and each keeps its name
                    self._cannot_read(path, str(error))
                continue
            for other in (os.path.realpath(path.parent / text) for text in _texts(table) if text.endswith(".toml")):
                if not os.path.exists(other):
                    self.names.setdefault(Path(other).stem, set()).add(None)
                elif other not in seen and Path(other).is_relative_to(project):
                    seen.add(other)
                    todo.append(Path(other))
            if isinstance(lower := table.get("extends"), str):
                self.quiet.add(Path(os.path.realpath(path.parent / lower)))
            if not is_profile and table.get("kind") != "suite":
                specs[path] = table.get("name", path.stem)
                if not isinstance(specs[path], str):
                    self._cannot_read(path, f"`{specs.pop(path)}` is no name")
        return specs, profiles

    def _files(self, folder: Path, ending: str) -> Iterator[Path]:
        """Yield the files in and below a folder, links to folders followed, each folder once."""
        def refused(error: OSError) -> None:
            if os.path.lexists(error.filename):  # else it was removed meanwhile, or was never there
                self._cannot_read(Path(error.filename), error.strerror or str(error))

        seen: set[str] = set()
        for here, folders, files in os.walk(folder, onerror=refused, followlinks=True):
            if (real := os.path.realpath(here)) in seen:
                folders.clear()
            else:
                seen.add(real)
                yield from (Path(here, name) for name in sorted(files) if name.endswith(ending))

    def _add_words(self, path: Path) -> bool:
        """Add all that looks like an id in a file; return whether it could be read. Hidden files are nobody's."""
        try:
            with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # a pipe would be waited for
                    raise OSError(errno.EINVAL, "not a regular file")
                self.ids.update(word.decode() for word in _WORD.findall(file.read()))
        except OSError as error:
            if not path.name.startswith("."):
                self._cannot_read(path, error.strerror or str(error))
            return False
        return True

    def _cannot_read(self, path: Path, why: str) -> None:
        self.unread[os.path.relpath(path)] = why

    def _add(self, project: Path, specs: Mapping[Path, str], profile: str) -> None:
        """Add the ids of specs under a profile, all at once or else in halves."""
        if not specs:
            return
        try:
            plan = make_plan(project, list(specs), profile)
            self._take(plan)
            for precision in PRECISIONS if plan.settled else ():  # a machine of another kind settles it otherwise
                self._take(make_plan(project, list(specs), profile, [f"train.precision={precision}"]))
        except Exception as error:  # whatever keeps a spec from being planned, an error in a part of its own too
            if len(specs) == 1:
                self._name(project, *next(iter(specs.items())), profile, error)
                return
            pairs = list(specs.items())
            for half in (pairs[: len(pairs) // 2], pairs[len(pairs) // 2 :]):
                self._add(project, dict(half), profile)

    def _take(self, plan: Plan) -> None:
        """Add what a plan refers to."""
        self.ids.update(plan.nodes)
        self.suites.update((node.spec.model.suite.type, node.spec.model.suite.name)
                           for node in plan.nodes.values() if isinstance(node.spec, Leaf))

    def _name(self, project: Path, path: Path, name: str, profile: str, error: Exception) -> None:
        """Add the name of a spec whose ids cannot be told under a profile."""
        suite = _suite(project, path, profile)
        self.names.setdefault(name, set()).add(suite)
        self.suites |= {suite} if suite else set()
        if isinstance(error, SpecError):
            self.wrong.setdefault(path, []).append(profile)
            return
        said = error.problems[0].message if isinstance(error, MtrunError) else f"{type(error).__name__}: {error}"
        names = self.missing.setdefault(said, [])
        names += [] if name in names else [name]

    @property
    def notes(self) -> list[str]:
        """What a person should know: why runs are kept to which perhaps nothing refers."""
        told = [f"{what} cannot be read, so that every run is kept: {why}" for what, why in self.unread.items()]
        told += [f"{what}: what may be a run of {_listed(names)} is kept" for what, names in self.missing.items()]
        wrong = [os.path.relpath(path) for path in self.wrong
                 if path not in self.quiet and Path(os.path.realpath(path)) not in self.quiet]
        return told + [f"{path} has problems, which `mtrun check {path}` tells: what may be a run of it is kept"
                       for path in wrong]

    def keep(self, id: str, name: str, spec: Mapping[str, Any]) -> bool:
        """Tell whether a run is referred to, or may be; `spec` is what it was trained as, as far as that is known."""
        if self.unread or id in self.ids:
            return True
        mine = _key(spec.get("suite"))
        is_others = mine in self.suites
        return any((name == known or is_point(name, known)) and not (is_others and suites.isdisjoint((mine, None)))
                   for known, suites in self.names.items())


def _suite(project: Path, path: Path, profile: str) -> SuiteKey | None:
    """Return the suite that a spec stands on under a profile, or None where that cannot be told."""
    with suppress(Exception):
        references = SpecFiles(project)
        layers = references.layers(path, {})
        if not any(layer.get("kind") in ("ensemble", "soup") or "suite" in str(layer.get("sweep")) for layer in layers):
            return _key(references.stacked([*references.profile(profile, {}), *layers], {})["suite"])
    return None


def _texts(value: Any) -> Iterator[str]:
    """Yield all texts in a table."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)


def _key(suite: Any) -> SuiteKey | None:
    """Return type and name in the table of a suite."""
    return (str(suite.get("type")), str(suite.get("name", ""))) if isinstance(suite, Mapping) else None


def _listed(names: Sequence[str]) -> str:
    """Return the first names, and how many others there are."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" or {more} others" if more > 0 else "")
