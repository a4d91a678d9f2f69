"""Results of a profile joined with the runs and the specs of their nodes.

Results are enough for tables. Runs add histories and environments, specs add commands and sentences; both are optional.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import MtrunError, RegistryError
from ..files import parse_json
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
    """Results of one profile, with lazy access to runs, plan, data and predictions of their nodes."""

    source: ResultFolder
    project: Path
    notes: list[str] = field(default_factory=list)
    """Missing information, with reasons."""
    _trees: dict[str, TreePredictions] = field(default_factory=dict)
    """Trees by the hash of the suite."""

    @property
    def folder(self) -> Path:
        """Folder of the results."""
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
        """All nodes of the results by id, each with the shortest of its names."""
        nodes: dict[str, ResultNode] = {}
        for node in (node for result in self.results for node in result.tree.nodes()):
            if _rank(node.name) < _rank(nodes.setdefault(node.id, node).name):
                nodes[node.id] = node
        return nodes

    @cached_property
    def suites(self) -> dict[str, Result]:
        """Node id -> a result on the suite that the node was scored on."""
        return {node.id: result for result in self.results for node in result.tree.nodes()}

    def aliases(self, node: ResultNode) -> tuple[str, ...]:
        """Return the other names of a node, shortest first; equivalent specs share one node."""
        names = {other.name for result in self.results for other in result.tree.nodes() if other.id == node.id}
        return tuple(sorted(names - {node.name, ""}, key=_rank))

    @property
    def by_suite(self) -> dict[str, Result]:
        """One result of each suite, by the hash of the suite."""
        return dict(sorted({result.sha256: result for result in self.results}.items()))

    def on(self, result: Result) -> list[ResultNode]:
        """Return the nodes scored on the suite of a result, each once."""
        return [node for id, node in self.nodes.items() if self.suites[id].sha256 == result.sha256]

    @cached_property
    def leaves(self) -> list[ResultNode]:
        """The leaves sorted by name, each once."""
        return sorted((n for n in self.nodes.values() if n.kind == "leaf"), key=lambda n: (n.name, n.id))

    @cached_property
    def plan(self) -> Plan:
        """The plan of the specs of the results under the profile, without those that cannot be planned."""
        return replanned(self.project, self.results[0].profile, self.results)

    @cached_property
    def runs(self) -> dict[str, Run]:
        """The finished runs of the leaves that are in the registry."""
        registry, runs = Registry(Project(self.project).registry), {}
        for leaf in self.leaves:
            with contextlib.suppress(MtrunError):
                if run := registry.find(leaf.id):
                    runs[leaf.id] = run
        if lost := len({leaf.id for leaf in self.leaves} - runs.keys() - self.plan.filed.keys()):
            self.notes.append(f"{lost} of {len(self.leaves)} runs are not in the registry: what they alone tell of "
                              "(curves, mistakes, environment) is left out")
        return runs

    def history(self, id: str) -> list[dict[str, Any]]:
        """Return the history of a leaf, one entry per epoch; empty if its run is missing or damaged."""
        run = self.runs.get(id)
        with contextlib.suppress(MtrunError, ValueError):
            return [parse_json(line) for line in run.read(HISTORY).splitlines()] if run else []
        return []

    def data(self, id: str) -> Data | None:
        """Return the examples that a node was scored on, or None if the specs no longer name them."""
        with contextlib.suppress(MtrunError, KeyError):
            return self.plan.data[self.suites[id].sha256]
        return None

    def predictions(self, id: str) -> Predictions | None:
        """Return the Predictions of a node, computed from its members if it is an ensemble; None if one is missing."""
        with contextlib.suppress(MtrunError, KeyError):
            return self._predict(id)
        return None

    def _predict(self, id: str) -> Predictions:
        """Return the Predictions of a node. Raise MtrunError if some are missing or do not match the data."""
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
        """Return the ends of the 95 % interval of a score, or None if it is unknown."""
        suite = self.source.significance.suites.get(self.suites[id].sha256, Evidence())
        return suite.interval(id, split, column, self.nodes[id].shown().get(split, {}).get(column))

    def cost(self, node: ResultNode, fact: str) -> float | None:
        """Return the sum of `seconds` or `inference` over the leaves of a node, or None if one of them is unknown."""
        return spent(self._costs, {leaf.id for leaf in node.nodes() if leaf.kind == "leaf"}, fact)

    @cached_property
    def _costs(self) -> dict[str, dict[str, Any]]:
        """Costs of each leaf by id, from its run or else as published."""
        return costs(self.folder) | {id: dict(run.manifest) for id, run in self.runs.items()}


def gather(folder: Path) -> list[ProfileResults]:
    """Return the ProfileResults of each profile under a folder of results, which may be that of one profile.

    Raise UsageError if there are no results, RegistryError if none can be shown.
    """
    project = Project.of(folder / "results").folder
    profiles = read(folder)
    if not any(profile.files for profile in profiles):
        raise RegistryError(*(problem for profile in profiles for problem in profile.problems))
    return [ProfileResults(profile, project, [*profile.notes, *(p.message for p in profile.problems)])
            for profile in profiles if profile.files]


def _rank(name: str) -> tuple[bool, int, str]:
    """Return the sort key of a name: shortest first, the empty name last."""
    return not name, len(name), name
