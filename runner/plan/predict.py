"""What the nodes of a plan predict, from finished runs alone: nothing is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import Problem, UsageError
from ..parts.ensembles import Choice
from ..registry.registry import Run
from ..specs.spec import Filed, Tree
from ..tasks.predictions import Predictions
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


@dataclass(frozen=True)
class TreePredictions:
    """What the nodes below a root predict, and what those of a tree learned from dev, by id."""

    predictions: Mapping[str, Predictions]
    choices: Mapping[str, Choice]

    @classmethod
    def of(cls, plan: Plan, root: str) -> TreePredictions:
        """Return those of finished runs. Raise UsageError where one is not trained, RegistryError for damage."""
        runs, known, choices = finished(plan, root), dict[str, Predictions](), dict[str, Choice]()
        for node in below(plan, root):
            if isinstance(node.spec, Tree):
                ensemble, members, data = node.spec.ensemble, [known[m] for m in node.members], plan.data[node.suite]
                choices[node.id] = ensemble.fit(members, data, node.members)
                known[node.id] = ensemble.apply(choices[node.id], members, data, node.members)
            else:
                known[node.id] = plan.filed[node.id] if isinstance(node.spec, Filed) else runs[node.id].predictions()
        return cls(known, choices)
