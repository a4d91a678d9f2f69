"""Load spec files and resolve `extends`, profile, `--set`, sweeps and references; report problems with places."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..errors import Place, Problem, SpecError, did_you_mean, nearest
from ..machine import computes_bf16, emulated_bf16, lacks_gpu
from ..part import Member
from ..parts.discovery import find, names
from ..parts.encoders import Encoder
from ..parts.ensembles import Ensemble
from ..parts.heads import Head
from ..parts.suites import Suite
from ..project import Project
from ..registry.registry import ID, Registry
from ..tasks.prediction_files import is_score_file
from .checks import misfits, misnamed_head, misnamed_members, misnamed_tasks, missing_files, unsafe_tasks
from .diff import place_of
from .merge import COMMAND_LINE, combined, setting, without
from .names import wrong_spec_name
from .spec import Filed, Leaf, Model, Soup, SoupModel, Spec, Stored, Tree
from .spec_files import HEADER, LEVELS, SCORES, SpecFiles, Users, alike, cycle
from .stored_run import trained_as
from .sweep import NODES, points, with_settings
from .toml import Table
from .validation import PartBuilder

PROBLEMS = 200
"""Number of problems after which loading stops."""

FILED = (*HEADER, "extends", "sweep")
"""Keys of a model file that are not fields of the model."""


def named_under(name: str, settings: Sequence[str]) -> str:
    """Return the name of a spec in a plan with `--set` settings. Raise SpecError for an invalid setting."""
    return with_settings(name, combined(Table(Place(COMMAND_LINE)), *map(setting, settings)))


class _Enough(Exception):
    """Raised to stop loading after too many problems."""


@dataclass
class _Opened:
    """A file being loaded, the place that names it, and the places that name the files it extends."""

    path: Path
    at: Place | None
    users: Users = field(default_factory=dict)


@dataclass
class Loader:
    """Loads specs of one project under one profile; each file is loaded once, however often it is named.

    Raise SpecError where the settings of the project are invalid.
    """

    project: Path
    profile: str = ""
    """Name of the profile; by default that of the environment, of the project, or `demo`."""
    settings: Sequence[str] = ()
    needs_files: bool = True
    """Whether it is a problem if packages or files that a model needs are not on this machine."""

    def __post_init__(self) -> None:
        self.references = SpecFiles(self.project)
        self.profile = self.profile or self.references.default_profile()
        self._parts = PartBuilder(self.project, self._member, self._add)
        self._problems: dict[tuple[str, Place | None], Problem] = {}
        self._open: list[_Opened] = []
        self._nodes: dict[Path, list[Spec]] = {}
        self._member_places: list[list[Place]] = []
        """Places that name the members of each node being loaded, outermost node first."""
        self._count = self._members = 0
        self._setting = Table(Place(COMMAND_LINE))
        """All `--set` settings, merged."""
        self._settled: dict[str, None] = {}
        self._warnings: dict[str, None] = {}
        self._is_profile_checked = False

    @property
    def settled(self) -> list[str]:
        """Settings that the specs leave to the machine, each with the resolved value and the reason."""
        return list(self._settled)

    @property
    def warnings(self) -> list[str]:
        """Warnings about valid settings that are unsuitable for this machine."""
        return list(self._warnings)

    def load(self, path: Path) -> list[Spec]:
        """Load a spec: one node, or the points of a sweep. Raise SpecError with all problems."""
        return self.load_all([path])[0]

    def load_all(self, paths: Iterable[Path]) -> list[list[Spec]]:
        """Load several specs. Raise SpecError with the problems of all of them."""
        nodes: list[list[Spec]] = []
        try:
            self._setting = self._settings()
            with self._recording():
                self.references.profile(self.profile, {})
            nodes = [self._requested(path) for path in paths]
            self._check_names(node for points in nodes for node in points)
        except _Enough:
            pass
        if self._problems:
            raise SpecError(*self._problems.values())
        return nodes

    def suite(self) -> Suite | None:
        """Return the suite of the profile, or None if it names none. Raise SpecError if it is invalid."""
        table = self.references.stacked(self.references.profile(self.profile, {}), {})
        if not isinstance(suite := table.get("suite"), Table):
            return None
        part = self._parts.part(Suite, suite, suite.place, "suite", HEADER)  # type: ignore[type-abstract]
        if not part:
            raise SpecError(*self._problems.values())
        if wrong := list(unsafe_tasks(part, suite)):
            raise SpecError(*wrong)
        return part

    def is_suite(self, path: Path) -> bool:
        """Return whether a file is a suite. Raise SpecError if it cannot be read."""
        if not path.is_file():
            return False
        layers = self.references.layers(Path(os.path.realpath(path)), {})
        return any(layer.get("kind") == "suite" for layer in layers)

    def suite_in(self, path: Path) -> tuple[Suite, Encoder | None]:
        """Return the suite in a file, with the settings over it, and the encoder of the profile, if it has one.

        Raise SpecError with all problems.
        """
        at, own = Place(COMMAND_LINE), Table(Place(COMMAND_LINE))
        own.put("suite", str(path), at, at)
        table = self.references.stacked([*self.references.profile(self.profile, {}), own, self._settings()], {})
        suite, encoder = table["suite"], table.get("encoder")
        part = self._parts.part(Suite, suite, suite.place, "suite", HEADER)  # type: ignore[type-abstract]
        self._add(*(unsafe_tasks(part, suite) if part else ()))
        if self._problems or not part:
            raise SpecError(*self._problems.values())
        return part, PartBuilder(self.project).part(Encoder, encoder, table.place, "encoder")  # type: ignore[type-abstract]

    def _requested(self, path: Path) -> list[Spec]:
        """Load a spec requested by its path."""
        if not os.path.exists(path):
            self._add(Problem(f"no file `{path}`", hint=alike(Path.cwd(), str(path))))
        elif path.is_dir():
            self._add(Problem(f"`{path}` is a folder, not a spec", hint=f"name files in it, such as `{path}/*.toml`"))
        else:
            return self._spec(Path(os.path.realpath(path)), None)
        return []

    def _settings(self) -> Table:
        """Merge all valid `--set` settings."""
        tables = []
        for text in self.settings:
            with self._recording():
                tables.append(setting(text))
        self._add(*(Problem(f"`{key}` cannot be set from here", table.keys_at[key], (), "write it into the spec")
                    for table in tables for key in table if key in (*FILED, "tree")))
        return without(combined(Table(Place(COMMAND_LINE)), *tables), (*FILED, "tree"))

    def _add(self, *problems: Problem) -> None:
        """Record problems, each with the places that led to its file; a problem reached twice is recorded once."""
        for problem in problems:
            users = [f"used by {place}" for place in self._users(problem.place)
                     if place != problem.place and not any(note.startswith(f"{place} ") for note in problem.notes)]
            notes = (*problem.notes, *users)
            self._problems.setdefault((problem.message, problem.place),
                                      Problem(problem.message, problem.place, notes, problem.hint))
        if len(self._problems) >= PROBLEMS:
            raise _Enough

    def _users(self, at: Place | None) -> Iterator[Place]:
        """Yield the place that names the file of a place, the place that names that file, and so on."""
        if at is None or at.file == COMMAND_LINE or not self._open:
            return
        users, file = self._open[-1].users, at.file
        while file in users:
            yield users[file]
            file = users[file].file
        yield from (opened.at for opened in reversed(self._open) if opened.at)

    @contextmanager
    def _recording(self) -> Iterator[None]:
        """Record the problems of a SpecError in the block and continue after the block."""
        try:
            yield
        except SpecError as error:
            self._add(*error.problems)

    def _check_names(self, nodes: Iterable[Spec]) -> None:
        """Report specs of equal names, since their results would overwrite each other."""
        by_name: dict[str, Spec] = {}
        for node in nodes:
            first = by_name.setdefault(node.name.lower(), node)
            if first is not node:
                self._add(Problem(f"two specs are called `{node.name}`", node.place, (f"the other is {first.place}",),
                                  "give one of them another name, such as `name = \"…\"` at its top"))

    def _spec(self, path: Path, at: Place | None) -> list[Spec]:
        """Load the nodes of a file; empty if it has problems. Raise SpecError for a cycle of references."""
        paths = [opened.path for opened in self._open]
        if at and path in paths:
            opened = self._open[paths.index(path) :]
            files = [self.references.shown(each.path) for each in (*opened, opened[0])]
            raise cycle(files, [*(each.at for each in opened[1:] if each.at), at], at)
        if path not in self._nodes:
            self._nodes[path] = []
            self._open.append(_Opened(path, at))
            with self._recording():
                self._nodes[path] = self._read(path)
            self._open.pop()
        return self._nodes[path]

    def _read(self, path: Path) -> list[Spec]:
        """Load the nodes of the innermost open file. Raise SpecError."""
        layers = self.references.layers(path, self._open[-1].users)
        top = layers[-1]
        name, kind = top.get("name", path.stem), next((t["kind"] for t in reversed(layers) if "kind" in t), None)
        if wrong := wrong_spec_name(name):
            message, hint = wrong
            hints = [hint] * bool(hint) + ["rename the file, or write `name = \"…\"` at its top"] * ("name" not in top)
            self._add(Problem(message, top.values_at.get("name", Place(top.place.file)), hint="; ".join(hints)))
            name = "unnamed"
        if kind == "ensemble":
            return self._ensemble(with_settings(name, self._setting), layers)
        self._member_places.append([])  # a teacher and the members of a soup are members too
        try:
            if kind == "model":
                return list(self._leaves(name, layers, self._open[-1].users))
            if kind == "soup":
                return self._soup(with_settings(name, self._setting), layers)
        finally:
            self._member_places.pop()
        raise SpecError(_no_kind(kind, top, self._open[-1].at))

    def _leaves(self, name: str, layers: Sequence[Table], users: Users) -> Iterator[Leaf]:
        """Yield a model, or each point of its sweep; `layers` are those of its file. Raise SpecError."""
        base = self.references.profile(self.profile, users)
        self._check_profile(self.references.stacked(base, users), base)
        own = [without(layer, FILED) for layer in layers]
        table = self.references.stacked([*base, *own], users)
        sweeps = [layer["sweep"] for layer in layers if "sweep" in layer]
        labelled = points(name, combined(*sweeps), FILED) if sweeps else [(name, Table(table.place))]
        self._count_nodes(len(labelled), table.place)
        for label, point in labelled:
            try:
                full_name = with_settings(label, self._setting)
                yield from self._leaf(full_name, table, [*own, point, self._setting], users)
            except SpecError as error:
                self._add(*error.problems)

    def _check_profile(self, table: Table, layers: Sequence[Table]) -> None:
        """Report problems of the profile itself once, even if every model overrides the invalid values."""
        if not self._is_profile_checked:
            self._is_profile_checked = True
            self._with_valid_heads(table, layers)
            PartBuilder(self.project, say=self._add, whole=False).part(Model, table, table.place, also=FILED)

    def _leaf(self, name: str, table: Table, layers: Sequence[Table], users: Users) -> Iterator[Leaf]:
        """Yield the leaf of one point if it is valid; the last two `layers` are not merged into `table` yet."""
        for layer in layers[-2:]:
            table = self.references.over(table, layer, users, headers=False)
        table, wrong = self._with_valid_heads(table, layers)
        model = self._parts.part(Model, table, table.place, also=FILED)
        if model and not wrong:
            self._add(*misfits(model, table), *(missing_files(model, table, self.project) if self.needs_files else ()))
            self._warn_of_device(model.resources.device, table)
            yield Leaf(name, self._with_precision(model, table), table)

    def _with_precision(self, model: Model, table: Table) -> Model:
        """Resolve precision `auto` for this machine; warn if bf16 would be emulated.

        The device is that of the machine that makes the plan; the machines of an executor may differ.
        """
        if (requested := model.train.precision) == "fp32":
            return model
        is_native, why = computes_bf16(model.resources.device)
        if requested == "auto":
            precision: Literal["fp32", "bf16"] = "bf16" if is_native else "fp32"
            self._settled.setdefault(f"precision `auto` is {precision} here: {why}")
            return model.with_precision(precision)
        if not is_native:
            at = place_of(table, ("train", "precision"))
            self._warnings.setdefault(f"warning: {at}: bf16 is emulated here, {emulated_bf16()} ({why}); "
                                     "`precision = \"auto\"` takes fp32")
        return model

    def _warn_of_device(self, device: str, table: Table) -> None:
        """Warn if this machine lacks the device; the machines of an executor may have it."""
        if lacks_gpu(device):
            self._warnings.setdefault(f"warning: {place_of(table, ('resources', 'device'))}: this machine has no GPU "
                                     f"`{device}` for torch; `device = \"auto\"` takes a GPU where there is one")

    def _with_valid_heads(self, table: Table, layers: Sequence[Table]) -> tuple[Table, bool]:
        """Return the table of a model without heads that do not apply, and whether it has an invalid head.

        Heads named by the `layers` of the model must belong to tasks of the suite. Other heads of the profile are kept
        if they are complete and the suite has their task; incomplete ones only provide defaults.
        """
        own = {task for layer in layers if isinstance(heads := layer.get("heads"), Table) for task in heads}
        heads, suite = table.get("heads"), table.get("suite")
        if not isinstance(suite, Table) or not isinstance(heads, Table):
            return table, False
        part = self._parts.part(Suite, suite, suite.place, "suite", HEADER)  # type: ignore[type-abstract]
        if not part:
            return table, True
        self._add(*unsafe_tasks(part, suite))
        foreign = [task for task in heads if task not in part.meanings()]
        wrong = [task for task in foreign if task in own]
        for task in wrong:
            self._add(misnamed_head(task, table, part))
        incomplete = [task for task in heads if task not in own and not self._is_complete(heads[task], heads.place)]
        kept = without(heads, [*foreign, *incomplete])
        out = without(table, [] if kept or wrong else ["heads"])
        if "heads" in out:
            out["heads"] = kept or heads
        return out, bool(wrong)

    def _is_complete(self, head: Any, at: Place) -> bool:
        """Return whether a head of the profile is valid by itself."""
        return PartBuilder(self.project).part(Head, head, at, "heads") is not None  # type: ignore[type-abstract]

    def _count_nodes(self, nodes: int, at: Place) -> None:
        """Count nodes before they are made; stop loading if there are too many."""
        self._count += nodes
        if self._count > NODES:
            self._add(Problem(f"a build has at most {NODES:,} nodes", at, hint="build it in parts"))
            raise _Enough

    def _ensemble(self, name: str, layers: list[Table]) -> list[Spec]:
        table = self.references.stacked(layers, {})
        takes, tree = (*HEADER, "extends", "tree"), table.get("tree")
        unknown = [key for key in table if key not in takes]
        for key in unknown:
            hint = did_you_mean(key, takes) or self._belongs(key)
            self._add(Problem(f"unknown key `{key}` in an ensemble", table.keys_at[key],
                              (f"an ensemble takes: {', '.join(takes)}",), hint))
        if isinstance(tree, Table):
            return self._tree(name, tree, "tree")
        if "tree" in table or "tree" not in [nearest(key, takes) for key in unknown]:
            hint = "add a table `[tree]` with a `type`" + (" and put the members into it" if unknown else "")
            self._add(Problem("`[tree]` is missing in an ensemble", table.values_at.get("tree", table.place), (), hint))
        return []

    def _soup(self, name: str, layers: list[Table]) -> list[Spec]:
        """Return the leaf of a soup; whether its members have equal shapes is checked by the plan."""
        table = without(self.references.stacked(layers, {}), HEADER)
        self._count_nodes(1, table.place)
        soup = self._parts.part(Soup, table, table.place, also=(*HEADER, "extends"))
        if not soup:
            return []
        places = tuple(self._member_places[-1])
        bare = [at for member, at in zip(soup.members, places, strict=True) if not isinstance(member, Leaf | Stored)]
        self._add(*(Problem("a soup is made of weights, which neither an ensemble nor a predictions file has", at, (),
                            "name models, sweeps or runs") for at in bare))
        models = [trained_as(member, self.project) for member in soup.members[:1] if not bare]
        return [Leaf(name, SoupModel.of(model, soup), table, places) for model in models]

    def _belongs(self, key: str) -> str:
        """Return a hint for a key of a node or model at the top level of an ensemble."""
        nodes = [find(Ensemble, name, self.project) for name in names(Ensemble, self.project)]  # type: ignore[type-abstract]
        if key == "type" or any(key in node.model_fields for node in nodes if node):
            return f"`{key}` belongs in `[tree]`"
        return "a model is a spec of its own, named as a member" if key in Model.model_fields else ""

    def _tree(self, name: str, table: Table, where: str) -> list[Spec]:
        """Return the ensemble in a table; empty if it has problems."""
        self._count_nodes(1, table.place)
        if len(self._member_places) == LEVELS:
            raise SpecError(Problem(f"nodes over {LEVELS} deep inside one another", table.place))
        self._member_places.append([])
        node = self._parts.part(Ensemble, table, table.place, where)  # type: ignore[type-abstract]
        places = self._member_places.pop()
        if not node:
            return []
        tree = Tree(name, node, table, tuple(places))
        self._add(*misnamed_tasks(tree), *misnamed_members(tree))
        return [tree]

    def _member(self, value: Any, at: Place, where: str) -> list[Member]:
        """Resolve one member: the path of a spec, `run:ID`, or an inline node; empty if it has problems."""
        members: list[Member] = []
        with self._recording():
            members += self._resolve(value, at, where)
        self._member_places[-1] += [at] * len(members)
        self._members += len(members)
        if self._members > 10 * NODES:
            self._add(Problem(f"the nodes of a build have over {10 * NODES:,} members", at))
            raise _Enough
        return members

    def _resolve(self, value: Any, at: Place, where: str) -> Sequence[Member]:
        """Resolve a member to nodes, a stored run or a predictions file. Raise SpecError."""
        if isinstance(value, Table):
            if "kind" in value or "extends" in value:
                raise SpecError(Problem("a spec cannot stand inside another", at, (),
                                        "put it into a file of its own and name that file here"))
            return self._tree("", value, where)
        if isinstance(value, str) and value.startswith("run:"):
            return [self._stored(value.removeprefix("run:"), at)]
        if isinstance(value, str) and is_score_file(value):
            path = self.references.named(value, at, SCORES)
            return [Filed(path.stem, path, at, self.references.shown(path))]
        return self._spec(self.references.named(value, at), at)

    def _stored(self, name: str, at: Place) -> Stored:
        """Return a finished run by id. Raise SpecError if there is none, RegistryError if it is damaged."""
        registry = Registry(Project(self.project).registry)
        if ID.fullmatch(name) and registry.find(name):
            return Stored(name, at)
        runs = {run.id: run.manifest["name"] for run in registry.runs()}
        same = [id for id in runs if name and (runs[id] == name or id.startswith(name))]
        hint = did_you_mean(name, [*runs, *runs.values()])
        if same:
            hint = f"did you mean {' or '.join(f'`run:{id}`, called `{runs[id]}`' for id in same[:3])}?"
        note = f"`mtrun ls` lists the runs: there are {len(runs) or 'none yet'}"
        raise SpecError(Problem(f"no finished run `{name}`", at, (note,), hint))


def _no_kind(kind: Any, top: Table, at: Place | None) -> Problem:
    """Return the problem of a file without a valid `kind`."""
    notes = ("`kind` can be: model, ensemble, soup",)
    if kind == "suite":
        return Problem("a suite is not built by itself", at or top.values_at.get("kind", top.place), (),
                       'name a model or an ensemble; models name their suite: `suite = "PATH"`')
    if key := nearest("kind", top):
        return Problem(f"unknown key `{key}` in the spec", top.keys_at[key], notes, did_you_mean(key, ["kind"]))
    hint = 'add a line `kind = "model"` or `kind = "ensemble"` at the top'
    return Problem("`kind` is missing", top.place, notes, hint)
