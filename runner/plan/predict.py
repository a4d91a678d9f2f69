"""Predictions of the nodes of a plan from finished runs, without training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..errors import Problem, UsageError
from ..parts.ensembles import Ensemble, TreePredictions
from ..registry.registry import Run
from ..specs.spec import Filed, Tree
from .plan import Plan, PlannedNode


def below(plan: Plan, root: str) -> list[PlannedNode]:
    """Return a node and all its members, direct and indirect, each once, in build order."""
    wanted = {root}
    for node in reversed(plan.nodes.values()):
        wanted |= set(node.members) if node.id in wanted else set()
    return [node for node in plan.nodes.values() if node.id in wanted]


def finished(plan: Plan, root: str) -> dict[str, Run]:
    """Return the runs of the leaves below a node by id. Raise UsageError with the leaves that are not trained."""
    leaves = [node for node in below(plan, root) if not isinstance(node.spec, Tree | Filed)]
    found = {node.id: plan.registry.find(node.id) for node in leaves if node.action == "reuse"}
    runs = {id: run for id, run in found.items() if run}
    if missing := [f"{node.title} ({node.id})" for node in leaves if node.id not in runs]:
        notes = (*missing[:5], *([f"and {len(missing) - 5} more"] if len(missing) > 5 else ()))
        raise UsageError(Problem(f"{len(missing)} of {len(leaves)} runs are not trained yet", notes=notes,
                                 hint="`mtrun build` with the same spec, profile and settings trains them"))
    return runs


def trees(nodes: Iterable[PlannedNode]) -> dict[str, tuple[Ensemble, Sequence[str]]]:
    """Return the ensembles among the nodes with the ids of their members, by id."""
    return {node.id: (node.spec.ensemble, node.members) for node in nodes if isinstance(node.spec, Tree)}


def tree_predictions(plan: Plan, root: str) -> TreePredictions:
    """Return the TreePredictions of all nodes below a root, computed from finished runs.

    Raise UsageError if a run is not trained, RegistryError if one is damaged.
    """
    runs, nodes = finished(plan, root), below(plan, root)
    tree = TreePredictions(plan.data[plan.nodes[root].suite], trees(nodes),
                           lambda id: plan.filed[id] if id in plan.filed else runs[id].predictions())
    tree.of(root)
    return tree
