"""From files to resolved specs: `extends`, profile, `--set`, sweeps, references; every problem with its place."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..errors import Place, Problem, SpecError, did_you_mean, nearest
from ..machine import computes_bf16, emulated_bf16
from ..part import Member
from ..parts.discovery import find, names
from ..parts.ensembles import Ensemble
from ..parts.heads import Head
from ..parts.suites import Suite
from ..project import Project
from ..registry.registry import ID, Registry
from ..tasks.prediction_files import is_score_file
from .checks import misfits, misnamed_head, misnamed_members, misnamed_tasks, unsafe_tasks
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
"""After how many problems reading stops."""

FILED = (*HEADER, "extends", "sweep")
"""Keys of a model's file that are not the model's."""


def named_under(name: str, settings: Sequence[str]) -> str:
    """Return the name of a spec in a plan with some `--set`. Raise SpecError where one says nothing right."""
    return with_settings(name, combined(Table(Place(COMMAND_LINE)), *map(setting, settings)))


class _Enough(Exception):
    """There is no use in looking for more problems."""


@dataclass
class _Opened:
    """A file that is being read, the place that named it, and the places that name the files it stands on."""

    path: Path
    at: Place | None
    users: Users = field(default_factory=dict)


@dataclass
class Loader:
    """Reads the specs of one project under one profile; each file is read once, however often it is named."""

    project: Path
    profile: str = "demo"
    settings: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.references = SpecFiles(self.project)
        self._parts = PartBuilder(self.project, self._member, self._say)
        self._problems: dict[tuple[str, Place | None], Problem] = {}
        self._open: list[_Opened] = []
        self._nodes: dict[Path, list[Spec]] = {}
        self._named: list[list[Place]] = []
        """For each node that is being made, outermost first, where each of its members is named."""
        self._count = self._members = 0
        self._setting = Table(Place(COMMAND_LINE))
        """All that `--set` says."""
        self._settled: dict[str, None] = {}
        self._warnings: dict[str, None] = {}
        self._is_profile_checked = False

    @property
    def settled(self) -> list[str]:
        """What the specs leave open and what it became on this machine, each with the reason."""
        return list(self._settled)

    @property
    def warnings(self) -> list[str]:
        """What is right and yet unwise on this machine."""
        return list(self._warnings)

    def load(self, path: Path) -> list[Spec]:
        """Return the nodes of a spec: one, or a sweep's points. Raise SpecError with all problems."""
        return self.load_all([path])[0]

    def load_all(self, paths: Iterable[Path]) -> list[list[Spec]]:
        """Return the nodes of several specs. Raise SpecError with the problems of them all."""
        nodes: list[list[Spec]] = []
        try:
            self._setting = self._settings()
            with self._collected():
                self.references.profile(self.profile, {})
            nodes = [self._asked(path) for path in paths]
            self._say_names(node for found in nodes for node in found)
        except _Enough:
            pass
        if self._problems:
            raise SpecError(*self._problems.values())
        return nodes

    def suite(self) -> Suite | None:
        """Return the suite of the profile, or None where it names none. Raise SpecError where that is wrong."""
        table = self.references.stacked(self.references.profile(self.profile, {}), {})
        if not isinstance(suite := table.get("suite"), Table):
            return None
        part = self._parts.part(Suite, suite, suite.place, "suite", HEADER)  # type: ignore[type-abstract]
        if part and (wrong := list(unsafe_tasks(part, suite))):
            raise SpecError(*wrong)
        return part

    def _asked(self, path: Path) -> list[Spec]:
        """Return the nodes of a spec that was asked for by its path."""
        if not os.path.exists(path):
            self._say(Problem(f"no file `{path}`", hint=alike(Path.cwd(), str(path))))
        elif path.is_dir():
            self._say(Problem(f"`{path}` is a folder, not a spec", hint=f"name files in it, such as `{path}/*.toml`"))
        else:
            return self._spec(Path(os.path.realpath(path)), None)
        return []

    def _settings(self) -> Table:
        """Return what all `--set` say, without those that say nothing right."""
        tables = []
        for text in self.settings:
            with self._collected():
                tables.append(setting(text))
        self._say(*(Problem(f"`{key}` cannot be set from here", table.keys_at[key], (), "write it into the spec")
                    for table in tables for key in table if key in (*FILED, "tree")))
        return without(combined(Table(Place(COMMAND_LINE)), *tables), (*FILED, "tree"))

    def _say(self, *problems: Problem) -> None:
        """Keep problems, each with the places that led to its file; one that was met on another way is kept once."""
        for problem in problems:
            users = [f"used by {place}" for place in self._users(problem.place)
                     if place != problem.place and not any(note.startswith(f"{place} ") for note in problem.notes)]
            notes = (*problem.notes, *users)
            self._problems.setdefault((problem.message, problem.place),
                                      Problem(problem.message, problem.place, notes, problem.hint))
        if len(self._problems) >= PROBLEMS:
            raise _Enough

    def _users(self, at: Place | None) -> Iterator[Place]:
        """Yield what named the file of a place, what named that file, and so on."""
        if at is None or at.file == COMMAND_LINE or not self._open:
            return
        users, file = self._open[-1].users, at.file
        while file in users:
            yield users[file]
            file = users[file].file
        yield from (opened.at for opened in reversed(self._open) if opened.at)

    @contextmanager
    def _collected(self) -> Iterator[None]:
        """Keep the problems of an error and go on without what it was about."""
        try:
            yield
        except SpecError as error:
            self._say(*error.problems)

    def _say_names(self, nodes: Iterable[Spec]) -> None:
        """Say which specs have one name, so that the results of one would hide those of the other."""
        seen: dict[str, Spec] = {}
        for node in nodes:
            first = seen.setdefault(node.name.lower(), node)
            if first is not node:
                self._say(Problem(f"two specs are called `{node.name}`", node.place, (f"the other is {first.place}",),
                                  "give one of them another name, such as `name = \"…\"` at its top"))

    def _spec(self, path: Path, at: Place | None) -> list[Spec]:
        """Return the nodes of a file; none where it has problems. Raise SpecError where it needs itself."""
        paths = [opened.path for opened in self._open]
        if at and path in paths:
            opened = self._open[paths.index(path) :]
            files = [self.references.shown(each.path) for each in (*opened, opened[0])]
            raise cycle(files, [*(each.at for each in opened[1:] if each.at), at], at)
        if path not in self._nodes:
            self._nodes[path] = []
            self._open.append(_Opened(path, at))
            with self._collected():
                self._nodes[path] = self._of(path)
            self._open.pop()
        return self._nodes[path]

    def _of(self, path: Path) -> list[Spec]:
        """Return the nodes of a file that is open. Raise SpecError."""
        layers = self.references.layers(path, self._open[-1].users)
        top = layers[-1]
        name, kind = top.get("name", path.stem), next((t["kind"] for t in reversed(layers) if "kind" in t), None)
        if wrong := wrong_spec_name(name):
            message, hint = wrong
            hints = [hint] * bool(hint) + ["rename the file, or write `name = \"…\"` at its top"] * ("name" not in top)
            self._say(Problem(message, top.values_at.get("name", Place(top.place.file)), hint="; ".join(hints)))
            name = "unnamed"
        if kind == "ensemble":
            return self._ensemble(with_settings(name, self._setting), layers)
        self._named.append([])  # a teacher and the members of a soup are members too
        try:
            if kind == "model":
                return list(self._leaves(name, layers, self._open[-1].users))
            if kind == "soup":
                return self._soup(with_settings(name, self._setting), layers)
        finally:
            self._named.pop()
        raise SpecError(_no_kind(kind, top, self._open[-1].at))

    def _leaves(self, name: str, layers: Sequence[Table], users: Users) -> Iterator[Leaf]:
        """Yield a model, or each point of its sweep; `layers` are those of its file. Raise SpecError."""
        ground = self.references.profile(self.profile, users)
        self._check_profile(self.references.stacked(ground, users), ground)
        own = [without(layer, FILED) for layer in layers]
        table = self.references.stacked([*ground, *own], users)
        sweeps = [layer["sweep"] for layer in layers if "sweep" in layer]
        made = points(name, combined(*sweeps), FILED) if sweeps else [(name, Table(table.place))]
        self._counted(len(made), table.place)
        for label, point in made:
            try:
                named = with_settings(label, self._setting)
                yield from self._leaf(named, table, [*own, point, self._setting], users)
            except SpecError as error:
                self._say(*error.problems)

    def _check_profile(self, table: Table, ground: Sequence[Table]) -> None:
        """Say what is wrong with a profile by itself, also where no model lets it be seen."""
        if not self._is_profile_checked:
            self._is_profile_checked = True
            self._fitted(table, ground)
            PartBuilder(self.project, say=self._say, whole=False).part(Model, table, table.place, also=FILED)

    def _leaf(self, name: str, table: Table, layers: Sequence[Table], users: Users) -> Iterator[Leaf]:
        """Yield the leaf of one point, if it is right; of `layers` the last two are not in the table yet."""
        for layer in layers[-2:]:
            table = self.references.over(table, layer, users, headers=False)
        table, wrong = self._fitted(table, layers)
        model = self._parts.part(Model, table, table.place, also=FILED)
        if model and not wrong:
            self._say(*misfits(model, table, self.project))
            yield Leaf(name, self._with_precision(model, table), table)

    def _with_precision(self, model: Model, table: Table) -> Model:
        """Return a model whose precision is that of the machine where the spec leaves it open; warn of an emulated one.

        The device is looked at where the plan is made: an executor's machines may be others.
        """
        if (asked := model.train.precision) == "fp32":
            return model
        is_native, why = computes_bf16(model.resources.device)
        if asked == "auto":
            precision: Literal["fp32", "bf16"] = "bf16" if is_native else "fp32"
            self._settled.setdefault(f"precision `auto` is {precision} here: {why}")
            return model.with_precision(precision)
        if not is_native:
            at = place_of(table, ("train", "precision"))
            self._warnings.setdefault(f"warning: {at}: bf16 is emulated here, {emulated_bf16()} ({why}); "
                                     "`precision = \"auto\"` takes fp32")
        return model

    def _fitted(self, table: Table, layers: Sequence[Table]) -> tuple[Table, bool]:
        """Return a model's table without heads that it cannot have, and whether that is wrong.

        A model has the heads that its `layers` name, which is wrong where the suite lacks their tasks. Of the profile's
        other heads it has those that are whole; the rest only say what such heads are like.
        """
        named = {task for layer in layers if isinstance(heads := layer.get("heads"), Table) for task in heads}
        heads, suite = table.get("heads"), table.get("suite")
        if not isinstance(suite, Table) or not isinstance(heads, Table):
            return table, False
        part = self._parts.part(Suite, suite, suite.place, "suite", HEADER)  # type: ignore[type-abstract]
        if not part:
            return table, True
        self._say(*unsafe_tasks(part, suite))
        foreign = [task for task in heads if task not in part.meanings()]
        wrong = [task for task in foreign if task in named]
        for task in wrong:
            self._say(misnamed_head(task, table, part))
        spare = [task for task in heads if task not in named and not self._is_whole(heads[task], heads.place)]
        kept = without(heads, [*foreign, *spare])
        out = without(table, [] if kept or wrong else ["heads"])
        if "heads" in out:
            out["heads"] = kept or heads
        return out, bool(wrong)

    def _is_whole(self, head: Any, at: Place) -> bool:
        """Tell whether a profile's head can be built as it is."""
        return PartBuilder(self.project).part(Head, head, at, "heads") is not None  # type: ignore[type-abstract]

    def _counted(self, nodes: int, at: Place) -> None:
        """Count nodes that are about to be made; stop where a build has too many."""
        self._count += nodes
        if self._count > NODES:
            self._say(Problem(f"a build has at most {NODES:,} nodes", at, hint="build it in parts"))
            raise _Enough

    def _ensemble(self, name: str, layers: list[Table]) -> list[Spec]:
        table = self.references.stacked(layers, {})
        takes, tree = (*HEADER, "extends", "tree"), table.get("tree")
        unknown = [key for key in table if key not in takes]
        for key in unknown:
            hint = did_you_mean(key, takes) or self._belongs(key)
            self._say(Problem(f"unknown key `{key}` in an ensemble", table.keys_at[key],
                              (f"an ensemble takes: {', '.join(takes)}",), hint))
        if isinstance(tree, Table):
            return self._tree(name, tree, "tree")
        if "tree" in table or "tree" not in [nearest(key, takes) for key in unknown]:
            hint = "add a table `[tree]` with a `type`" + (" and put the members into it" if unknown else "")
            self._say(Problem("`[tree]` is missing in an ensemble", table.values_at.get("tree", table.place), (), hint))
        return []

    def _soup(self, name: str, layers: list[Table]) -> list[Spec]:
        """Return the leaf of a soup, as long as it stands alone: what its members are like is seen by the plan."""
        table = without(self.references.stacked(layers, {}), HEADER)
        self._counted(1, table.place)
        soup = self._parts.part(Soup, table, table.place, also=(*HEADER, "extends"))
        if not soup:
            return []
        named = tuple(self._named[-1])
        bare = [at for member, at in zip(soup.members, named, strict=True) if not isinstance(member, Leaf | Stored)]
        self._say(*(Problem("a soup is made of weights, which neither an ensemble nor a predictions file has", at, (),
                            "name models, sweeps or runs") for at in bare))
        ground = [trained_as(member, self.project) for member in soup.members[:1] if not bare]
        return [Leaf(name, SoupModel.of(model, soup), table, named) for model in ground]

    def _belongs(self, key: str) -> str:
        """Return a hint for a key of a node or of a model that stands at the top of an ensemble."""
        nodes = [find(Ensemble, name, self.project) for name in names(Ensemble, self.project)]  # type: ignore[type-abstract]
        if key == "type" or any(key in node.model_fields for node in nodes if node):
            return f"`{key}` belongs in `[tree]`"
        return "a model is a spec of its own, named as a member" if key in Model.model_fields else ""

    def _tree(self, name: str, table: Table, where: str) -> list[Spec]:
        """Return the node that a table describes; none where it has problems."""
        self._counted(1, table.place)
        if len(self._named) == LEVELS:
            raise SpecError(Problem(f"nodes over {LEVELS} deep inside one another", table.place))
        self._named.append([])
        node = self._parts.part(Ensemble, table, table.place, where)  # type: ignore[type-abstract]
        named = self._named.pop()
        if not node:
            return []
        tree = Tree(name, node, table, tuple(named))
        self._say(*misnamed_tasks(tree), *misnamed_members(tree))
        return [tree]

    def _member(self, value: Any, at: Place, where: str) -> list[Member]:
        """Return what one member means: a spec's path, `run:ID`, or an inline node."""
        found: list[Member] = []
        with self._collected():
            found += self._meant(value, at, where)
        self._named[-1] += [at] * len(found)
        self._members += len(found)
        if self._members > 10 * NODES:
            self._say(Problem(f"the nodes of a build have over {10 * NODES:,} members", at))
            raise _Enough
        return found

    def _meant(self, value: Any, at: Place, where: str) -> Sequence[Member]:
        """Return what a member means: a node, a stored run, a predictions file. Raise SpecError."""
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
        """Return a finished run. Raise SpecError where there is none, RegistryError where it is damaged."""
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


def _no_kind(kind: Any, top: Table, named: Place | None) -> Problem:
    """Return the problem of a file that is neither a model nor an ensemble."""
    notes = ("`kind` can be: model, ensemble, soup",)
    if kind == "suite":
        return Problem("a suite is not built by itself", named or top.values_at.get("kind", top.place), (),
                       'name a model or an ensemble; models name their suite: `suite = "PATH"`')
    if key := nearest("kind", top):
        return Problem(f"unknown key `{key}` in the spec", top.keys_at[key], notes, did_you_mean(key, ["kind"]))
    hint = 'add a line `kind = "model"` or `kind = "ensemble"` at the top'
    return Problem("`kind` is missing", top.place, notes, hint)
