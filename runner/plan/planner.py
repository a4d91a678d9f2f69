"""Make a plan from specs: load them, compute the ids of their nodes and choose an action for each."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import DataError, Problem, RegistryError, SpecError, StorageError, did_you_mean
from ..parts.suites import Suite
from ..project import Project
from ..registry.registry import Registry
from ..specs.identity import filed_id, leaf_id, stale_sources, tree_id
from ..specs.loader import Loader
from ..specs.spec import Filed, Leaf, Model, Node, Stored, Tree, leaves
from ..specs.stored_run import suite_of
from ..tasks.data import Task
from ..tasks.metrics import measures
from ..tasks.prediction_files import probabilities, read
from .derived import DerivedLeaf
from .plan import NEW, Action, Plan, PlannedNode


def make_plan(project: Path, specs: Sequence[Path], profile: str = "", settings: Sequence[str] = ()) -> Plan:
    """Return the plan of some specs without starting anything; without `profile` under the project's default one.

    Raise SpecError or DataError with every problem.
    """
    loader = Loader(project, profile, settings)
    plan = Plan(project, loader.profile, Registry(Project(project).registry), settings=tuple(settings))
    planner = _Planner(plan, loader.suite)
    for path, nodes in zip(specs, loader.load_all(specs), strict=True):
        for node in nodes:
            plan.roots[node.name] = planner.add(node)
            plan.specs[node.name] = os.path.relpath(os.path.realpath(path), os.path.realpath(project))
    plan.mark_spare()
    plan.files = loader.references.files()
    plan.settled = loader.settled
    plan.notes += dict.fromkeys(note for notes in plan.data.notes.values() for note in notes)
    plan.notes += loader.warnings if plan.todo() else []
    return plan


@dataclass
class _Planner:
    """Adds nodes to a plan bottom-up; nodes of equal id are merged."""

    plan: Plan
    profile_suite: Callable[[], Suite | None]
    suites: dict[str, str] = field(default_factory=dict)
    seen: dict[int, str] = field(default_factory=dict)
    open: list[Tree] = field(default_factory=list)
    """The ensembles being added, outermost first."""
    files: dict[tuple[Path, str], PlannedNode] = field(default_factory=dict)
    """Planned predictions files by path and suite; each file is read once."""

    def add(self, node: Node) -> str:
        """Add a node with all its dependencies and return its id."""
        if id(node) not in self.seen:
            adder = {Leaf: self._leaf, Tree: self._tree, Stored: self._stored, Filed: self._filed}[type(node)]
            planned = adder(node)  # type: ignore[operator]
            self.seen[id(node)] = planned.id
            self.plan.nodes.setdefault(planned.id, planned)
        return self.seen[id(node)]

    def _leaf(self, leaf: Leaf) -> PlannedNode:
        suite = self._suite(leaf.model.suite)
        needs = [self.add(member) for member in leaf.model.needs]
        plan = self.plan
        derived = DerivedLeaf(leaf, needs, plan.nodes, suite, plan.registry, plan.project) if needs else None
        model = derived.resolved() if derived else leaf.model
        identity = leaf_id(model, suite, self.plan.project)
        action, reason, stale = self._state(identity, model)
        if derived and action != "reuse":
            self.plan.notes += derived.check()
        elif derived and (changed := derived.changed_runs(identity)):
            stale, reason = (*stale, *changed), f"made of {', '.join(changed)} before it was trained again"
        return PlannedNode(identity, leaf.name, replace(leaf, model=model), (), action, reason, suite, stale,
                       needs=tuple(dict.fromkeys(needs)), trees=derived.trees() if derived else {})

    def _state(self, identity: str, model: Model) -> tuple[Action, str, tuple[str, ...]]:
        """Return the action of a leaf, the reason, and the files of code that changed since its run was trained."""
        registry = self.plan.registry
        try:
            run = registry.find(identity)
        except RegistryError as error:
            self.plan.notes.append(f"{error}; it will be set aside and trained again")
            return "train", "damaged", ()
        except StorageError as error:
            self.plan.notes.append(f"{error}; the run is left as it is")
            return "reuse", "cannot be read", ()
        if run:
            stale = stale_sources(run, model)
            files = ", ".join(stale[:3]) + (f" and {len(stale) - 3} more files" if len(stale) > 3 else "")
            return "reuse", f"trained with older code of {files}" if stale else "finished", stale
        if (registry.attempt(identity) / "checkpoint.safetensors").exists():
            return "resume", "stopped before its end", ()
        return "train", NEW, ()

    def _tree(self, tree: Tree) -> PlannedNode:
        self.open.append(tree)
        members = tuple(self.add(child) for child in tree.ensemble.children())
        self.open.pop()
        suites = {self.plan.nodes[m].suite for m in members}
        if len(suites) != 1:
            raise SpecError(Problem("the members of an ensemble must share one suite", tree.place))
        suite = suites.pop()
        self._check_tasks(tree, self.plan.data.suites[suite].meanings())
        return PlannedNode(tree_id(tree.ensemble, members), tree.name, tree, members, "score", "", suite)

    def _check_tasks(self, tree: Tree, tasks: Mapping[str, Task]) -> None:
        """Raise SpecError if an ensemble names a task or a score that the suite lacks."""
        scores = measures(tasks)
        unknown = [(key, task) for key, task in tree.ensemble.names_tasks().items()
                   if task not in (tasks if "." in key else scores)]
        if unknown:
            known = ", ".join(scores)
            raise SpecError(*(Problem(f"unknown task `{task}` in `{key}`", tree.place, (f"the suite has: {known}",),
                                      did_you_mean(task, scores)) for key, task in unknown))

    def _stored(self, stored: Stored) -> PlannedNode:
        run = self.plan.registry.find(stored.id)
        if run is None:
            raise SpecError(Problem(f"no finished run `{stored.id}`", stored.place))
        suite = run.manifest["suite"]["sha256"]
        if suite not in self.plan.data.suites and self._suite(suite_of(run, self.plan.project)) != suite:
            raise SpecError(Problem(f"the data of the run `{stored.id}` changed since it was trained", stored.place))
        return PlannedNode(run.id, run.manifest["name"], stored, (), "reuse", "finished", suite)

    def _filed(self, filed: Filed) -> PlannedNode:
        """Return the node of a predictions file. Raise DataError if the file does not match the examples."""
        suite = self._suite_for(filed)
        if (filed.path, suite) in self.files:
            return self.files[filed.path, suite]
        try:
            predictions = read(filed.path, filed.shown, self.plan.data[suite])
        except DataError as error:
            raise DataError(*(Problem(p.message, p.place, (*p.notes, f"used by {filed.place}"), p.hint)
                              for p in error.problems)) from None
        identity = filed_id(predictions, suite)
        for task in probabilities(predictions, self.plan.data[suite]):
            self.plan.notes.append(f"warning: {filed.shown}: the scores of `{task}` look like probabilities; logits "
                                   "are expected, such as log(p / (1 - p))")
        self.plan.filed[identity] = predictions
        self.files[filed.path, suite] = PlannedNode(identity, filed.name, filed, (), "reuse", "a file", suite)
        return self.files[filed.path, suite]

    def _suite_for(self, filed: Filed) -> str:
        """Return the hash of the suite that a predictions file belongs to.

        It is the suite of the models in the nearest enclosing ensemble that has any, else that of the profile. Raise
        SpecError if the profile has none either.
        """
        for tree in reversed(self.open):
            if leaf := next(leaves(tree), None):
                return self.plan.nodes[self.add(leaf)].suite
        if suite := self.profile_suite():
            return self._suite(suite)
        raise SpecError(Problem(f"it is not known which suite `{filed.name}` is for", filed.place, (),
                                "name a model beside it, or a `suite` in the profile"))

    def _suite(self, suite: Suite) -> str:
        """Return the hash of the content of a suite, computed once."""
        key = suite.model_dump_json()
        if key not in self.suites:
            self.suites[key] = self.plan.data.add(suite)
            self.plan.suites.setdefault(self.suites[key], suite.name)
        return self.suites[key]
