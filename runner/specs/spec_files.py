"""Read the files of a project's specs, resolve the paths in them and the chains that they `extend`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import Place, Problem, SpecError, did_you_mean, nearest
from ..project import Project
from .merge import COMMAND_LINE, merged, without
from .names import wrong_profile_name
from .sweep import spread
from .toml import Table, read

PUBLISHED = "published"
"""Folder of published results, where a build never writes; not a valid name of a profile."""

LEVELS = 50
"""Maximal length of a chain of `extends`, and maximal depth of nested nodes."""

LISTED = 1000
"""Maximal number of names in a folder that are compared for a similar one."""

KINDS = ("model", "ensemble", "soup", "suite")
"""Values of `kind`; a profile has none."""

HEADER = ("kind", "name", "description")
"""Keys of every spec that decide no result."""

EXECUTOR = "executor"
"""Key of a profile that decides how workers are started; not part of models."""

VARIABLE = "MTRUN_PROFILE"
"""Environment variable with the profile of commands that name none."""

DEMO = "demo"
"""Profile where neither command, environment nor project names one."""

SETTINGS = ("profile",)
"""Keys of a project's settings."""

ENDING = ".toml"
"""Suffix of the files that a spec may extend or name as specs."""

SCORES = "a predictions file"
"""What a spec may name besides specs, as messages call it."""

Users = dict[str, Place]
"""Place of the first reference to each file, by the file's name in places."""


def cycle(files: Sequence[str], users: Iterable[Place], at: Place) -> SpecError:
    """Return the error of a cycle of files, whose first and last are the same."""
    links = tuple(f"{user} names {file}" for user, file in zip(users, files[1:], strict=True))
    return SpecError(Problem(f"these files need each other: {' -> '.join(files)}", at, links,
                             "take one of these references out"))


@dataclass
class SpecFiles:
    """Reads the files of one project, each once."""

    project: Path
    _tables: dict[Path, Table] = field(default_factory=dict)
    _suites: dict[Path, Table] = field(default_factory=dict)
    _folders: dict[str, Path] = field(default_factory=dict)
    """Folder of each file, by the file's name in places."""
    _profile_places: dict[str, Place] = field(default_factory=dict)
    """Place that names the default profile, if one does."""

    @property
    def _profiles(self) -> Path:
        return Project(self.project).profiles

    def shown(self, path: Path) -> str:
        """Return a file's name for places: relative to the working folder if below it or if both are in the project."""
        here = Path.cwd()
        near = path.is_relative_to(here) or (path.is_relative_to(self.project) and here.is_relative_to(self.project))
        return os.path.relpath(path, here) if near else str(path)

    def table(self, path: Path) -> Table:
        """Read one file, once; its sweep has dotted keys split. Raise SpecError."""
        if path not in self._tables:
            self._folders[self.shown(path)] = path.parent
            table = read(path, self.shown(path))
            _check_header(table)
            if "sweep" in table:
                table["sweep"] = _spread(table)
            self._tables[path] = table
        return self._tables[path]

    def files(self) -> list[Path]:
        """Return the paths of all files read, sorted."""
        return sorted(self._tables)

    def named(self, value: Any, at: Place, what: str = "a spec") -> Path:
        """Resolve a path in a spec, relative to the folder of the spec's file. Raise SpecError."""
        if not isinstance(value, str) or not value:
            raise SpecError(Problem(f"expected the path of {what}, in quotes", at))
        folder = self._folders.get(at.file, Path.cwd())
        path = Path(os.path.realpath(folder / value))
        if not path.is_relative_to(self.project):
            raise SpecError(Problem(f"`{value}` is outside the project", at, (f"the project is {self.project}",),
                                    "copy the file into the project"))
        if not os.path.exists(path):
            looked = f"looked for {self.shown(path)}"
            raise SpecError(Problem(f"no file `{value}`", at, (looked,), alike(folder, value)))
        if path.is_dir():
            raise SpecError(Problem(f"`{value}` is a folder, not {what}", at, hint="name a file in it"))
        if what != SCORES and not value.endswith(ENDING):  # so that a spec never hides in a file of another kind
            raise SpecError(Problem(f"`{value}` is not {what}: its name does not end with `{ENDING}`", at))
        return path

    def layers(self, path: Path, users: Users) -> list[Table]:
        """Return the tables of a file and of all that it `extends`, weakest first; record references in `users`.

        Raise SpecError.
        """
        files, tables = [path], [self.table(path)]
        while "extends" in tables[-1]:
            at = tables[-1].values_at["extends"]
            path = self.named(tables[-1]["extends"], at, "a spec to extend")
            if path in files:
                first = files.index(path)
                names = [self.shown(file) for file in (*files[first:], path)]
                raise cycle(names, (table.values_at["extends"] for table in tables[first:]), at)
            if len(files) >= LEVELS:
                raise SpecError(Problem(f"over {LEVELS} files that extend one another", at))
            users.setdefault(self.shown(path), at)
            files.append(path)
            tables.append(self.table(path))
            _check_kinds(*tables[-2:])
        own, *below = tables
        return [*(without(table, ["extends", "name", "description"]) for table in reversed(below)),
                without(own, ["extends"])]

    def stacked(self, layers: Iterable[Table], users: Users) -> Table:
        """Merge layers, weakest first, as `over` does. Raise SpecError."""
        return reduce(lambda lower, upper: self.over(lower, upper, users), layers, Table(Place("")))

    def over(self, lower: Table, upper: Table, users: Users, headers: bool = True) -> Table:
        """Merge one layer over another, with the suite's path replaced by its table. Raise SpecError."""
        table = merged(lower, upper, headers)
        if "suite" in table and not isinstance(table["suite"], Table):
            at = table.values_at["suite"]
            table.put("suite", self.suite(table["suite"], at, users), table.keys_at["suite"], at)
        return table

    def suite(self, value: Any, at: Place, users: Users) -> Table:
        """Read the table of a suite from its path. Raise SpecError."""
        path = self.named(value, at, "a suite")
        users.setdefault(self.shown(path), at)
        layers = self.layers(path, users)
        if path not in self._suites:
            table = reduce(merged, layers)
            if table.get("kind") != "suite":
                raise SpecError(_no_suite(value, at, table))
            table = without(table, ["kind", "description"])
            if "name" not in table:
                table.put("name", path.stem, table.place, table.place)
            self._suites[path] = table
        return self._suites[path]

    def default_profile(self) -> str:
        """Return the profile of a command that names none: MTRUN_PROFILE, else the project's setting, else `demo`.

        Raise SpecError for invalid settings; `profile` reports one that is not there.
        """
        if name := os.environ.get(VARIABLE):
            self._profile_places[name] = Place(COMMAND_LINE, 0, len(VARIABLE) + 2, len(name), f"{VARIABLE}={name}")
            return name
        path = Project(self.project).settings
        table = read(path, self.shown(path)) if os.path.lexists(path) else Table(Place(""))
        _check_settings(table, path.name)
        if "profile" in table:
            self._profile_places[table["profile"]] = table.values_at["profile"]
        return str(table.get("profile", DEMO))

    def profile(self, name: str, users: Users) -> list[Table]:
        """Return the layers of a profile, the defaults of all models. Raise SpecError."""
        folder = self._profiles
        known = sorted(f.stem for f in islice(folder.glob("*.toml"), LISTED) if not wrong_profile_name(f.stem))
        if name not in known:
            raise SpecError(_no_profile(name, known, self.shown(folder), self._profile_places.get(name)))
        layers = self.layers(folder / f"{name}.toml", users)
        if wrong := [(table, key) for table in layers for key in ("kind", "name", "sweep") if key in table]:
            raise SpecError(*(Problem(f"a profile has no `{key}`", table.keys_at[key]) for table, key in wrong))
        return [without(table, ["description", EXECUTOR]) for table in layers]

    def executor(self, profile: str) -> Table:
        """Return a profile's table reduced to its `executor`; an empty one where it has none."""
        layers = self.layers(self._profiles / f"{profile}.toml", {})
        return reduce(merged, (without(table, [key for key in table if key != EXECUTOR]) for table in layers))


def _no_suite(value: str, at: Place, table: Table) -> Problem:
    if "kind" not in table and (key := nearest("kind", table)):
        return Problem(f"unknown key `{key}` in the suite", table.keys_at[key], (), did_you_mean(key, ["kind"]))
    return Problem(f"`{value}` is not a suite", at, (f"see {table.place}",), 'a suite has the line `kind = "suite"`')


def _check_settings(table: Table, file: str) -> None:
    """Raise SpecError where the settings of a project are invalid."""
    problems = [Problem(f"unknown key `{key}` in {file}", table.keys_at[key], (f"it takes: {', '.join(SETTINGS)}",),
                        did_you_mean(key, SETTINGS)) for key in table if key not in SETTINGS]
    if "profile" in table and not (isinstance(table["profile"], str) and table["profile"]):
        problems.append(Problem("`profile` must be the name of a profile, in quotes", table.values_at["profile"]))
    if problems:
        raise SpecError(*problems)


def _no_profile(name: str, known: Sequence[str], folder: str, at: Place | None) -> Problem:
    at = at or Place(COMMAND_LINE, 0, len("--profile ") + 1, len(name), f"--profile {name}")
    if why := wrong_profile_name(name):
        return Problem(f"no profile can be called `{name}`", at, (why,), f"rename specs/profiles/{name}.toml")
    if known:
        return Problem(f"unknown profile `{name}`", at, (f"there are: {', '.join(known)}",), did_you_mean(name, known))
    return Problem(f"there are no profiles in {folder}", at, (), "a project has at least `specs/profiles/demo.toml`; "
                   "`mtrun init` makes a project")


def _spread(table: Table) -> Table:
    """Return a file's sweep with dotted keys split. Raise SpecError."""
    if isinstance(table["sweep"], Table):
        return spread(table["sweep"])
    raise SpecError(Problem("`sweep` must be a table of keys and lists", table.values_at["sweep"], (),
                            'such as `[sweep]` with a line `"optimizer.lr_scale" = [1.0, 2.0]` under it'))


def _check_header(table: Table) -> None:
    """Raise SpecError where `kind` or `description` of a file is invalid."""
    kind, problems = table.get("kind", KINDS[0]), []
    if kind not in KINDS:
        problems.append(Problem(f"unknown kind `{kind}`", table.values_at["kind"], (f"there are: {', '.join(KINDS)}",),
                                did_you_mean(str(kind), KINDS)))
    if not isinstance(table.get("description", ""), str):
        problems.append(Problem("`description` must be text in quotes", table.values_at["description"]))
    if problems:
        raise SpecError(*problems)


def _check_kinds(upper: Table, lower: Table) -> None:
    """Raise SpecError where a file extends one of another kind."""
    kinds = upper.get("kind"), lower.get("kind")
    if None not in kinds and kinds[0] != kinds[1]:
        raise SpecError(Problem(f"a spec of kind `{kinds[0]}` cannot extend one of kind `{kinds[1]}`",
                                upper.values_at["extends"], (f"see {lower.values_at['kind']}",)))


def alike(folder: Path, value: str) -> str:
    """Return a hint with the most similar existing path, which differs in the first missing part only."""
    parts = Path(value).parts
    missing = next(n for n in range(len(parts)) if not os.path.exists(folder.joinpath(*parts[: n + 1])))
    above, below = Path(*parts[:missing]), parts[missing + 1 :]
    try:
        paths = [(above / entry.name).joinpath(*below) for entry in islice(os.scandir(folder / above), LISTED)]
    except OSError:
        return ""
    return did_you_mean(value, sorted(str(path) for path in paths if os.path.isfile(folder / path)))
