"""Dossiers: the published results of a profile with what the registry and the specs still tell of their nodes.

Results alone make tables. Runs add histories and environments, specs add places and sentences; each may be missing.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import MtrunError, RegistryError
from ..parts.ensembles import TreePredictions
from ..plan.plan import Plan
from ..plan.predict import trees
from ..project import Project
from ..registry.registry import HISTORY, Registry, Run
from ..tasks.data import Data
from ..tasks.predictions import Predictions
from .costs import costs, spent
from .replan import replanned
from .result import Result, ResultNode
from .result_folder import ResultFolder, read
from .significance import Evidence


@dataclass
class ProfileResults:
    """What is known of the nodes of one profile's results."""

    source: ResultFolder
    project: Path
    notes: list[str] = field(default_factory=list)
    """What could not be had, and why."""
    _trees: dict[str, TreePredictions] = field(default_factory=dict)
    """By the hash of the suite's content."""

    @property
    def folder(self) -> Path:
        """Where the results lie."""
        return self.source.path

    @property
    def results(self) -> list[Result]:
        """The results, in the order of their files."""
        return self.source.results

    @property
    def profile(self) -> str:
        """Name of the profile, `published/NAME` for what the repository publishes of it."""
        return self.source.profile

    @cached_property
    def nodes(self) -> dict[str, ResultNode]:
        """Every node of the results by id, under the shortest of its names."""
        found: dict[str, ResultNode] = {}
        for node in (node for result in self.results for node in result.tree.nodes()):
            if _rank(node.name) < _rank(found.setdefault(node.id, node).name):
                found[node.id] = node
        return found

    @cached_property
    def suites(self) -> dict[str, Result]:
        """A result of the suite that each node was scored on, by the node's id."""
        return {node.id: result for result in self.results for node in result.tree.nodes()}

    def aliases(self, node: ResultNode) -> tuple[str, ...]:
        """Return the other names of a node, shortest first: specs that mean the same are one node."""
        names = {other.name for result in self.results for other in result.tree.nodes() if other.id == node.id}
        return tuple(sorted(names - {node.name, ""}, key=_rank))

    @property
    def by_suite(self) -> dict[str, Result]:
        """A result of each suite, by the hash of the suite's content."""
        return dict(sorted({result.sha256: result for result in self.results}.items()))

    def on(self, result: Result) -> list[ResultNode]:
        """Return the nodes that were scored on the suite of a result, each once."""
        return [node for id, node in self.nodes.items() if self.suites[id].sha256 == result.sha256]

    @cached_property
    def leaves(self) -> list[ResultNode]:
        """The leaves by name, each once."""
        return sorted((n for n in self.nodes.values() if n.kind == "leaf"), key=lambda n: (n.name, n.id))

    @cached_property
    def plan(self) -> Plan:
        """The plan of the project's specs under the profile, without those that cannot be planned."""
        return replanned(self.project, self.results[0].profile, self.results)

    @cached_property
    def runs(self) -> dict[str, Run]:
        """The finished runs of the leaves that are still there."""
        registry, found = Registry(Project(self.project).registry), {}
        for leaf in self.leaves:
            with contextlib.suppress(MtrunError):
                if run := registry.find(leaf.id):
                    found[leaf.id] = run
        if lost := len({leaf.id for leaf in self.leaves} - found.keys() - self.plan.filed.keys()):
            self.notes.append(f"{lost} of {len(self.leaves)} runs are not in the registry: what they alone tell of "
                              "(curves, mistakes, environment) is left out")
        return found

    def history(self, id: str) -> list[dict[str, Any]]:
        """Return a leaf's history, an entry an epoch; nothing where its run is gone or damaged."""
        run = self.runs.get(id)
        with contextlib.suppress(MtrunError, ValueError):
            return [json.loads(line) for line in run.read(HISTORY).splitlines()] if run else []
        return []

    def data(self, id: str) -> Data | None:
        """Return the examples that a node was scored on, where the specs still name them."""
        with contextlib.suppress(MtrunError, KeyError):
            return self.plan.data[self.suites[id].sha256]
        return None

    def predictions(self, id: str) -> Predictions | None:
        """Return a node's Predictions, of an ensemble made again from its members; None where something is missing."""
        with contextlib.suppress(MtrunError, KeyError):
            return self._predict(id)
        return None

    def _predict(self, id: str) -> Predictions:
        """Return a node's Predictions. Raise MtrunError where something is missing or does not fit."""
        def leaf(id: str) -> Predictions:
            if id in self.runs:
                return self.runs[id].predictions()
            if id in self.plan.filed:
                return self.plan.filed[id]
            raise RegistryError(f"run {id} is not in the registry")

        sha256 = self.suites[id].sha256
        if sha256 not in self._trees:
            self._trees[sha256] = TreePredictions(self.plan.data[sha256], trees(self.plan.nodes.values()), leaf)
        return self._trees[sha256].of(id)

    def interval(self, id: str, column: str, split: str = "dev") -> tuple[float, float] | None:
        """Return the ends of the 95 % interval of a score; None where it is not known."""
        suite = self.source.significance.suites.get(self.suites[id].sha256, Evidence())
        return suite.interval(id, split, column, self.nodes[id].shown().get(split, {}).get(column))

    def cost(self, node: ResultNode, fact: str) -> float | None:
        """Return `seconds` or `inference` of all leaves of a node together; None where one of them is not known."""
        return spent(self._costs, {leaf.id for leaf in node.nodes() if leaf.kind == "leaf"}, fact)

    @cached_property
    def _costs(self) -> dict[str, dict[str, Any]]:
        """What each leaf cost, by its run or, where that is gone, by what was published."""
        return costs(self.folder) | {id: dict(run.manifest) for id, run in self.runs.items()}


def gather(folder: Path) -> list[ProfileResults]:
    """Return the dossier of each profile under a folder of results, which may be that of one profile.

    Raise UsageError where there are no results, RegistryError where none can be shown.
    """
    project = Project.of(folder / "results").folder
    found = read(folder)
    if not any(one.files for one in found):
        raise RegistryError(*(problem for one in found for problem in one.problems))
    return [ProfileResults(one, project, [*one.notes, *(p.message for p in one.problems)])
            for one in found if one.files]


def _rank(name: str) -> tuple[bool, int, str]:
    """Return what names are sorted by: shorter ones come first, none comes last."""
    return not name, len(name), name
