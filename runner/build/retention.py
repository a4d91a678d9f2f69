"""Retention: runs are kept while a published result or a spec under any profile refers to them.

Where a spec cannot be planned, since data are missing or it has problems, runs of its name are kept. Where a file
cannot be read, all runs are kept.
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
"""What `precision = "auto"` is resolved to, depending on the machine."""

LISTED = 3
"""Maximum number of names in a message."""

_WORD = re.compile(rb"\b[0-9a-f]{12}\b")

SuiteKey = tuple[str, str]
"""Type and name of a suite."""


@dataclass
class Retention:
    """References to runs: published results, specs under every profile, `run:ID` in a spec."""

    ids: set[str] = field(default_factory=set)
    names: dict[str, set[SuiteKey | None]] = field(default_factory=dict)
    """Names of specs that cannot be planned under some profile -> their suites there, None for an unknown one."""
    suites: set[SuiteKey] = field(default_factory=set)
    """The suites of all specs."""
    unread: dict[str, str] = field(default_factory=dict)
    """Files that cannot be read, so that every run is kept -> the reason."""
    unplanned: dict[str, list[str]] = field(default_factory=dict)
    """Error message -> the names of the specs that it kept from being planned."""
    invalid: dict[Path, list[str]] = field(default_factory=dict)
    """Invalid specs -> the profiles under which they are invalid."""
    quiet: set[Path] = field(default_factory=set)
    """Specs without a note about problems, since they are valid under some profile, or other specs extend them."""

    @classmethod
    def of(cls, project: Path) -> Retention:
        """Collect all references of a project."""
        retention = cls()
        retention.add_results(project)
        specs, profiles = retention._specs(project)
        if not profiles:
            retention._cannot_read(Project(project).profiles, "there is no profile in it")
        for profile in profiles:
            retention._add(project, specs, profile)
        retention.quiet |= {path for path, under in retention.invalid.items() if len(under) < len(profiles)}
        return retention

    def add_results(self, project: Path) -> None:
        """Add the ids in published results."""
        for path in self._files(Project(project).results, ".json"):
            self._add_words(path)

    def _specs(self, project: Path) -> tuple[dict[Path, str], list[str]]:
        """Return the names of all specs by path, and the names of the profiles; add the ids in all files."""
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
                if not is_profile:  # under a broken profile no spec can be planned: runs are kept by name
                    self._cannot_read(path, str(error))
                continue
            for other in (os.path.realpath(path.parent / text) for text in _texts(table) if text.endswith(".toml")):
                if not os.path.exists(other):
                    self.names.setdefault(Path(other).stem, set()).add(None)
                elif other not in seen and Path(other).is_relative_to(project):
                    seen.add(other)
                    todo.append(Path(other))
            if isinstance(base := table.get("extends"), str):
                self.quiet.add(Path(os.path.realpath(path.parent / base)))
            if not is_profile and table.get("kind") != "suite":
                specs[path] = table.get("name", path.stem)
                if not isinstance(specs[path], str):
                    self._cannot_read(path, f"`{specs.pop(path)}` is no name")
        return specs, profiles

    def _files(self, folder: Path, ending: str) -> Iterator[Path]:
        """Yield the files with an ending in and below a folder, following links to folders, each folder once."""
        def note_error(error: OSError) -> None:
            if os.path.lexists(error.filename):  # else it was removed meanwhile, or was never there
                self._cannot_read(Path(error.filename), error.strerror or str(error))

        seen: set[str] = set()
        for here, folders, files in os.walk(folder, onerror=note_error, followlinks=True):
            if (real := os.path.realpath(here)) in seen:
                folders.clear()
            else:
                seen.add(real)
                yield from (Path(here, name) for name in sorted(files) if name.endswith(ending))

    def _add_words(self, path: Path) -> bool:
        """Add all words of a file that look like an id; return whether it was read. Hidden files may be unreadable."""
        try:
            with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # reading a pipe would block
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
        """Add the ids of specs under a profile, planned together; on an error, recursively in halves."""
        if not specs:
            return
        try:
            plan = make_plan(project, list(specs), profile)
            self._add_plan(plan)
            for precision in PRECISIONS if plan.settled else ():  # other machines may resolve it otherwise
                self._add_plan(make_plan(project, list(specs), profile, [f"train.precision={precision}"]))
        except Exception as error:  # any error in planning, also in a user's own part
            if len(specs) == 1:
                self._add_name(project, *next(iter(specs.items())), profile, error)
                return
            pairs = list(specs.items())
            for half in (pairs[: len(pairs) // 2], pairs[len(pairs) // 2 :]):
                self._add(project, dict(half), profile)

    def _add_plan(self, plan: Plan) -> None:
        """Add the ids and suites of a plan."""
        self.ids.update(plan.nodes)
        self.suites.update((node.spec.model.suite.type, node.spec.model.suite.name)
                           for node in plan.nodes.values() if isinstance(node.spec, Leaf))

    def _add_name(self, project: Path, path: Path, name: str, profile: str, error: Exception) -> None:
        """Add the name of a spec that cannot be planned under a profile."""
        suite = _suite(project, path, profile)
        self.names.setdefault(name, set()).add(suite)
        self.suites |= {suite} if suite else set()
        if isinstance(error, SpecError):
            self.invalid.setdefault(path, []).append(profile)
            return
        message = error.problems[0].message if isinstance(error, MtrunError) else f"{type(error).__name__}: {error}"
        names = self.unplanned.setdefault(message, [])
        names += [] if name in names else [name]

    @property
    def notes(self) -> list[str]:
        """Messages about runs that are kept although perhaps nothing refers to them."""
        notes = [f"{path} cannot be read, so that every run is kept: {why}" for path, why in self.unread.items()]
        notes += [f"{message}: what may be a run of {_listed(names)} is kept"
                  for message, names in self.unplanned.items()]
        paths = [os.path.relpath(path) for path in self.invalid
                 if path not in self.quiet and Path(os.path.realpath(path)) not in self.quiet]
        return notes + [f"{path} has problems, which `mtrun check {path}` tells: what may be a run of it is kept"
                        for path in paths]

    def keep(self, id: str, name: str, spec: Mapping[str, Any]) -> bool:
        """Return whether a run is, or may be, referred to; `spec` is the run's spec, as far as it is known."""
        if self.unread or id in self.ids:
            return True
        suite = _key(spec.get("suite"))
        is_known = suite in self.suites
        return any((name == known or is_point(name, known)) and not (is_known and suites.isdisjoint((suite, None)))
                   for known, suites in self.names.items())


def _suite(project: Path, path: Path, profile: str) -> SuiteKey | None:
    """Return the suite of a spec under a profile, or None where it is unknown."""
    with suppress(Exception):
        spec_files = SpecFiles(project)
        layers = spec_files.layers(path, {})
        if not any(layer.get("kind") in ("ensemble", "soup") or "suite" in str(layer.get("sweep")) for layer in layers):
            return _key(spec_files.stacked([*spec_files.profile(profile, {}), *layers], {})["suite"])
    return None


def _texts(value: Any) -> Iterator[str]:
    """Yield all strings in a table."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)


def _key(suite: Any) -> SuiteKey | None:
    """Return type and name of a suite's table; None where it is no table."""
    return (str(suite.get("type")), str(suite.get("name", ""))) if isinstance(suite, Mapping) else None


def _listed(names: Sequence[str]) -> str:
    """Return the first `LISTED` names and the number of others, as text."""
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" or {more} others" if more > 0 else "")
