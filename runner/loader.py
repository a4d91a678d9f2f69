"""From files to resolved specs: `extends`, profile, `--set`, sweeps, references; every problem with its place."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .assembly import Assembly
from .ensembles import Ensemble
from .errors import Place, Problem, SpecError, did_you_mean
from .files import is_safe_name
from .parts import Member
from .spec import Leaf, Model, Spec, Stored, Tree
from .suites import Suite
from .toml import Array, Table, parse, read

POINTS = 1000
"""How many points one sweep may have."""

HEADER = ("kind", "name", "description")
"""Keys that every spec may have and that decide no result."""


def project_of(path: Path) -> Path:
    """Return the project's folder: the nearest above a spec that holds `specs/profiles`, else the spec's own."""
    folder = path.resolve().parent
    return next((f for f in (folder, *folder.parents) if (f / "specs" / "profiles").is_dir()), folder)


def merged(lower: Table, upper: Table) -> Table:
    """Return a new table, `upper` on top of `lower` key by key; one of another `type` replaces what is below it."""
    replaces = "type" in upper and upper["type"] != lower.get("type")
    out = Table(upper.place)
    for table in (upper,) if replaces else (lower, upper):
        for key, value in table.items():
            below = out.get(key)
            if isinstance(value, Table) and isinstance(below, Table):
                value = merged(below, value)
            out.put(key, value, table.keys_at[key], table.values_at[key])
    return out


def setting(text: str) -> Table:
    """Return the table that one `--set key=value` means; a value that is no TOML counts as a string."""
    key, equals, value = text.partition("=")
    if not equals:
        raise SpecError(Problem(f"--set takes key=value, got `{text}`", hint="such as --set train.epochs=3"))
    try:
        return parse(f"{key}={value}", "--set")
    except SpecError:
        return parse(f"{key}={json.dumps(value)}", "--set")


def swept(sweep: Table, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any, Place]]:
    """Yield each swept key as a path, its values and its place; `"a.b" = [...]` and `a.b = [...]` are the same."""
    for key, value in sweep.items():
        path = (*above, *key.split("."))
        if isinstance(value, Table):
            yield from swept(value, path)
        else:
            yield path, value, sweep.values_at[key]


def nested(path: Sequence[str], value: Any, at: Place) -> Table:
    """Return the tables that one dotted key means."""
    for key in reversed(path):
        table = Table(at)
        table.put(key, value, at, at)
        value = table
    return table


def points(sweep: Table) -> list[tuple[str, Table]]:
    """Return a label and the overriding table of each point of a sweep's grid. Raise SpecError."""
    axes = []
    for path, values, at in swept(sweep):
        if not isinstance(values, Array) or not values:
            raise SpecError(Problem(f"`{'.'.join(path)}` in `[sweep]` must be a list of values", at))
        axes.append([(path, value, place) for value, place in zip(values, values.items_at, strict=True)])
    grid = list(itertools.islice(itertools.product(*axes), POINTS + 1))
    if len(grid) > POINTS:
        raise SpecError(Problem(f"a sweep has at most {POINTS:,} points", sweep.place))
    out = []
    for point in grid:
        table = Table(sweep.place)
        for path, value, place in point:
            table = merged(table, nested(path, value, place))
        label = ",".join(f"{path[-1]}={value}" for path, value, _ in point)
        out.append((f"@{label}", table))
    return out


@dataclass
class Loader:
    """Reads the specs of one project under one profile; each file is read once, however often it is named."""

    project: Path
    profile: str = "demo"
    settings: Sequence[str] = ()
    _problems: dict[tuple[str, Place | None], Problem] = field(default_factory=dict)
    _open: list[tuple[Path, Place | None]] = field(default_factory=list)
    """The files being read, outermost first, each with the place that named it."""
    _tables: dict[Path, Table] = field(default_factory=dict)
    _nodes: dict[Path, list[Spec]] = field(default_factory=dict)
    _folders: dict[str, Path] = field(default_factory=dict)
    """The folder of each file by the name that places show."""

    def load(self, path: Path) -> list[Spec]:
        """Return the nodes of a spec: one, or a sweep's points. Raise SpecError with all problems."""
        nodes = self._spec(path.resolve(), None)
        if self._problems:
            raise SpecError(*self._problems.values())
        return nodes

    def _say(self, *problems: Problem) -> None:
        """Keep problems, each with the files that led to it; one that was met on another way is kept once."""
        users = tuple(f"used by {place}" for _, place in reversed(self._open) if place)
        for p in problems:
            self._problems.setdefault((p.message, p.place), Problem(p.message, p.place, p.notes + users, p.hint))

    @contextmanager
    def _reading(self, path: Path, at: Place | None) -> Iterator[None]:
        """Keep track of the file that is being read, for cycles and for the files that led to a problem.

        An error on the way out has its problems collected and goes on without them, to end what depends on the file.
        """
        ring = [p for p, _ in self._open]
        if path in ring:
            names = " -> ".join(p.name for p in (*ring[ring.index(path):], path))
            raise SpecError(Problem(f"specs that need each other: {names}", at))
        self._open.append((path, at))
        try:
            yield
        except SpecError as error:
            self._say(*error.problems)
            raise SpecError() from error
        finally:
            self._open.pop()

    def _table(self, path: Path) -> Table:
        """Read one file, remembering where it lies."""
        if path not in self._tables:
            shown = str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
            self._folders[shown] = path.parent
            self._tables[path] = read(path, shown)
        return self._tables[path]

    def _beside(self, value: Any, at: Place) -> Path:
        """Return the file that a value names, from the folder of the file that it stands in."""
        if not isinstance(value, str):
            raise SpecError(Problem("expected the path of a spec", at))
        path = (self._folders.get(at.file, Path.cwd()) / value).resolve()
        if not path.is_relative_to(self.project):
            raise SpecError(Problem(f"`{value}` is outside the project's folder {self.project}", at))
        return path

    def _chain(self, path: Path) -> Table:
        """Return a file merged over the chain that it `extends`."""
        table = self._table(path)
        if "extends" not in table:
            return table
        at = table.values_at["extends"]
        base = self._beside(table["extends"], at)
        with self._reading(base, at):
            lower = self._chain(base)
        out = merged(lower, table)
        del out["extends"]
        return out

    def _spec(self, path: Path, at: Place | None) -> list[Spec]:
        """Return the nodes of a file; none where it has problems."""
        if path not in self._nodes or any(path == opened for opened, _ in self._open):
            self._nodes[path] = []
            try:
                with self._reading(path, at):
                    self._nodes[path] = self._of(path)
            except SpecError as error:
                self._say(*error.problems)
        return self._nodes[path]

    def _of(self, path: Path) -> list[Spec]:
        table = self._chain(path)
        name, kind = table.get("name", path.stem), table.get("kind")
        if not isinstance(name, str) or not is_safe_name(name):
            hint = "a name has letters, digits and . _ - = , + @ only"
            raise SpecError(Problem(f"`{name}` cannot be a name", table.values_at.get("name", table.place), hint=hint))
        if kind == "ensemble":
            return self._ensemble(name, table)
        if kind == "model":
            return self._models(name, table)
        message = "`kind` is missing" if kind is None else f"a spec of kind `{kind}` cannot be built"
        raise SpecError(Problem(message, table.values_at.get("kind", table.place), ("`kind` can be: ensemble, model",),
                                did_you_mean(str(kind), ("ensemble", "model"))))

    def _ensemble(self, name: str, table: Table) -> list[Spec]:
        takes = (*HEADER, "extends", "tree")
        self._say(*(Problem(f"unknown key `{key}` in an ensemble", table.keys_at[key],
                            (f"an ensemble takes: {', '.join(takes)}",), did_you_mean(key, takes))
                    for key in table if key not in takes))
        if not isinstance(table.get("tree"), Table):
            raise SpecError(Problem("`[tree]` is missing in an ensemble", table.place))
        return self._tree(name, table["tree"], "tree")

    def _tree(self, name: str, table: Table, where: str) -> list[Spec]:
        assembly = Assembly(self.project, self._member)
        node = assembly.part(Ensemble, table, table.place, where)  # type: ignore[type-abstract]
        self._say(*assembly.problems)
        return [Tree(name, node, table.place)] if node else []

    def _member(self, value: Any, at: Place) -> list[Member]:
        """Return what one member means: a spec's path, `run:ID`, or an inline node."""
        if isinstance(value, Table):
            return list(self._tree("", value, "member"))
        if isinstance(value, str) and value.startswith("run:"):
            return [Stored(value.removeprefix("run:"), at)]
        try:
            return list(self._spec(self._beside(value, at), at))
        except SpecError as error:
            self._say(*error.problems)
            return []

    def _models(self, name: str, table: Table) -> list[Spec]:
        """Return a model, or each point of its sweep."""
        table = self._grounded(table)
        for key in HEADER:
            table.pop(key, None)
        sweep = table.pop("sweep", None)
        if sweep is not None and not isinstance(sweep, Table):
            raise SpecError(Problem("`[sweep]` must be a table", table.values_at["sweep"]))
        nodes: list[Spec] = []
        for label, point in points(sweep) if sweep else [("", Table(table.place))]:
            resolved = table
            for upper in (point, *map(setting, self.settings)):
                resolved = self._with_suite(merged(resolved, upper))
            nodes += self._leaf(name + label, resolved)
        return nodes

    def _grounded(self, own: Table) -> Table:
        """Return a model on its profile; the profile's heads are left out where the model's suite lacks their tasks."""
        ground = self._ground()
        table = self._with_suite(merged(ground, own))
        suite = Assembly(self.project).part(Suite, table.get("suite"), table.place)  # type: ignore[type-abstract]
        heads = table.get("heads")
        if suite and isinstance(heads, Table):
            mine = own.get("heads", {})
            for task in [t for t in heads if t not in suite.meanings() and t not in mine]:
                del heads[task]
        return table

    def _leaf(self, name: str, table: Table) -> list[Spec]:
        assembly = Assembly(self.project)
        model = assembly.part(Model, table, table.place)
        self._say(*assembly.problems)
        if not model:
            return []
        self._say(*mismatches(model, table))
        return [Leaf(name, model, table)]

    def _with_suite(self, table: Table) -> Table:
        """Return a model's table with its suite's file in place of the path."""
        value = table.get("suite")
        if not isinstance(value, str):
            return table
        at = table.values_at["suite"]
        path = self._beside(value, at)
        with self._reading(path, at):
            suite = merged(Table(at), self._chain(path))
            if suite.get("kind") != "suite":
                raise SpecError(Problem("this file is not of kind suite", suite.values_at.get("kind", suite.place)))
            for key in ("kind", "description"):
                suite.pop(key, None)
            if "name" not in suite:
                suite.put("name", path.stem, at, at)
        out = merged(Table(table.place), table)
        out.put("suite", suite, table.keys_at["suite"], at)
        return out

    def _ground(self) -> Table:
        """Return the profile, the ground that specs stand on."""
        folder = self.project / "specs" / "profiles"
        known = sorted(f.stem for f in folder.glob("*.toml"))
        if self.profile not in known:
            note = f"{folder} has: {', '.join(known) or 'none'}"
            raise SpecError(Problem(f"no profile `{self.profile}`", None, (note,), did_you_mean(self.profile, known)))
        return self._with_suite(self._chain(folder / f"{self.profile}.toml"))


def mismatches(model: Model, table: Table) -> list[Problem]:
    """Return what does not fit together: heads and losses that do not suit their tasks, unknown trained tasks."""
    out, tasks = [], model.suite.meanings()
    heads = table["heads"]
    for name, head in model.heads.items():
        at, task = heads.keys_at[name], tasks.get(name)
        if task is None:
            out.append(Problem(f"unknown task `{name}`", at, (f"the suite has: {', '.join(tasks)}",),
                               did_you_mean(name, tasks)))
        elif task.sentences not in head.sentences:
            out.append(Problem(f"head `{head.type}` takes {' or '.join(map(str, head.sentences))} sentences, "
                               f"an example of `{name}` has {task.sentences}", heads[name].values_at["type"]))
        elif task.kind not in head.loss.kinds:
            out.append(Problem(f"loss `{head.loss.type}` is not defined for the {task.kind} `{name}`",
                               heads[name].values_at["loss"], (f"it is for: {', '.join(head.loss.kinds)}",)))
    for name in model.trained:
        if name not in model.heads:
            out.append(Problem(f"unknown task `{name}` in `train.tasks`", table["train"].values_at["tasks"],
                               (f"tasks with a head: {', '.join(model.heads)}",), did_you_mean(name, model.heads)))
    return out
