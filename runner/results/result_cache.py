"""Cache of results, so that a build with nothing to do computes nothing.

The value is the scored tree of a system. The key covers everything that determines it: the ids of all nodes in it, the
manifests of its runs, the code of its nodes and the code that scores them. The caller must have verified the runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import MtrunError
from ..files import read_cache, sha256, write_cache
from ..parts.discovery import sources
from ..plan.plan import Plan, PlannedNode
from ..registry.registry import Run
from ..specs.spec import Filed, Tree
from .result import Result, ResultNode

CODE = ("build/build.py", "results/result_cache.py", "results/result.py", "tasks/metrics.py", "results/crossfit.py",
        "tasks/folds.py", "parts/ensembles/_scales.py", "tasks/predictions.py", "parts/ensembles/__init__.py",
        "tasks/data.py", "tasks/metric_types.py")
"""Code that results depend on, except the code of the nodes."""


@dataclass(frozen=True)
class ResultCache:
    """Cache of the results of the systems of a plan; its files can be deleted at any time."""

    plan: Plan
    runs: Mapping[str, Run]
    """The finished runs by id."""

    def find(self, name: str) -> Result | None:
        """Return the result of a system, or None if it is not cached or the cached file is damaged."""
        with contextlib.suppress(MtrunError, KeyError):
            path = self._path(name)
            if data := read_cache(path):
                result = Result.from_json(data, str(path))
                return result if self._is_of(result, name) else None
        return None

    def _is_of(self, result: Result, name: str) -> bool:
        """Return whether a result says that it is of a system of the plan, with the same nodes and runs."""
        plan, root = self.plan, self.plan.roots[name]
        suite = plan.nodes[root].suite
        request = plan.profile, name, plan.specs.get(name, ""), plan.settings, plan.suites[suite], suite
        said = result.profile, result.tree.name, result.spec, result.settings, result.suite, result.sha256
        return request == said and self._has_nodes(result.tree, root)

    def _has_nodes(self, node: ResultNode, id: str) -> bool:
        """Return whether a node and all below it are those of the plan."""
        planned = self.plan.nodes[id]
        digest = "" if planned.members else self.runs[id].digest if id in self.runs else id
        return (node.id, node.digest) == (id, digest) and len(node.members) == len(planned.members) and all(
            member.name == self.plan.nodes[other].name and self._has_nodes(member, other)
            for member, other in zip(node.members, planned.members, strict=True))

    def keep(self, name: str, result: Result) -> None:
        """Store the result of a system; a failure to write is ignored."""
        with contextlib.suppress(KeyError):
            write_cache(self._path(name), result.to_json())

    def _path(self, name: str) -> Path:
        """Return the cache file of a system. Raise KeyError if one of its runs is missing."""
        root = self.plan.roots[name]
        below = [self._node_key(node) for node in self.plan.nodes.values() if node.id in self._nodes_of(root)]
        suite = self.plan.nodes[root].suite
        request = [self.plan.profile, name, self.plan.specs.get(name), self.plan.settings]
        key = json.dumps([self._code, *request, self.plan.suites[suite], suite, below])
        return self.plan.registry.cache / "results" / f"{hashlib.sha256(key.encode()).hexdigest()}.json"

    def _nodes_of(self, root: str) -> set[str]:
        """Return the ids of all nodes in a tree."""
        ids, todo = {root}, [root]
        while todo:
            new = set(self.plan.nodes[todo.pop()].members) - ids
            ids |= new
            todo += new
        return ids

    def _node_key(self, node: PlannedNode) -> list[Any]:
        """Return everything that determines the part of a node in a result."""
        if isinstance(node.spec, Tree):
            code = {file: sha256(path) for file, path in sources(node.spec.ensemble).items()}
            return [node.id, node.name, node.members, code]
        return [node.id, node.name, "" if isinstance(node.spec, Filed) else self.runs[node.id].manifest["sha256"]]

    @cached_property
    def _code(self) -> list[str]:
        return [sys.version, *(sha256(Path(__file__).parents[1] / name) for name in CODE)]
