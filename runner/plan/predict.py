"""What the nodes of a plan predict, from finished runs alone: nothing is trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..errors import Problem, UsageError
from ..parts.ensembles import Ensemble, TreePredictions
from ..registry.registry import Run
from ..specs.spec import Filed, Tree
from .plan import Plan, PlannedNode


def below(plan: Plan, root: str) -> list[PlannedNode]:
    """Return a node and all below it, each once, in the order in which they are built."""
    wanted = {root}
    for node in reversed(plan.nodes.values()):
        wanted |= set(node.members) if node.id in wanted else set()
    return [node for node in plan.nodes.values() if node.id in wanted]


def finished(plan: Plan, root: str) -> dict[str, Run]:
    """Return the runs of the leaves below a node by id. Raise UsageError that names those that are not trained."""
    leaves = [node for node in below(plan, root) if not isinstance(node.spec, Tree | Filed)]
    runs = {node.id: plan.registry.find(node.id) for node in leaves if node.action == "reuse"}
    found = {id: run for id, run in runs.items() if run}
    if missing := [f"{node.title} ({node.id})" for node in leaves if node.id not in found]:
        notes = (*missing[:5], *([f"and {len(missing) - 5} more"] if len(missing) > 5 else ()))
        raise UsageError(Problem(f"{len(missing)} of {len(leaves)} runs are not trained yet", notes=notes,
                                 hint="`mtrun build` with the same spec, profile and settings trains them"))
    return found


def trees(nodes: Iterable[PlannedNode]) -> dict[str, tuple[Ensemble, Sequence[str]]]:
    """Return the ensembles among some nodes with the ids of their members, by id."""
    return {node.id: (node.spec.ensemble, node.members) for node in nodes if isinstance(node.spec, Tree)}


def tree_predictions(plan: Plan, root: str) -> TreePredictions:
    """Return the Predictions of finished runs and of all trees above them, up to a root.

    Raise UsageError where a run is not trained, RegistryError where one is damaged.
    """
    runs, nodes = finished(plan, root), below(plan, root)
    tree = TreePredictions(plan.data[plan.nodes[root].suite], trees(nodes),
                           lambda id: plan.filed[id] if id in plan.filed else runs[id].predictions())
    tree.of(root)
    return tree
