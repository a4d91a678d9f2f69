"""Plans and runs as text and as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from .plan import Plan, Planned
from .registry import Run
from .spec import Leaf, Tree


def plan_text(plan: Plan) -> str:
    """Return a plan as trees, each node with what is to be done and why; a shared node is drawn out once."""
    drawn: set[str] = set()
    lines = [line for root in dict.fromkeys(plan.roots.values()) for line in _branch(plan, root, "", "", drawn)]
    width = max(len(text) for text, _ in lines)
    counts: dict[str, int] = {}
    for node in plan.nodes.values():
        counts[node.action] = counts.get(node.action, 0) + 1
    total = ", ".join(f"{count} to {action}" for action, count in sorted(counts.items()))
    return "\n".join([*(f"{text:{width}}  {note}".rstrip() for text, note in lines), "", total])


def _branch(plan: Plan, identity: str, first: str, rest: str, drawn: set[str]) -> Iterator[tuple[str, str]]:
    """Yield the lines of a node and of all below it."""
    node = plan.nodes[identity]
    title = node.name or what(node)
    if identity in drawn and node.members:
        yield f"{first}{title}", "as above"
        return
    drawn.add(identity)
    yield f"{first}{title}", f"{node.action}  {identity}" + (f"  ({node.reason})" if node.reason else "")
    for number, member in enumerate(node.members, 1):
        is_last = number == len(node.members)
        yield from _branch(plan, member, rest + ("└─ " if is_last else "├─ "), rest + ("   " if is_last else "│  "), drawn)


def what(node: Planned) -> str:
    """Return what a node is in a few words."""
    if isinstance(node.node, Tree):
        return node.node.node.summary()
    return node.node.model.summary() if isinstance(node.node, Leaf) else "a stored run"


def plan_json(plan: Plan) -> str:
    """Return a plan as JSON, one node a line, children first."""
    return "\n".join(json.dumps({
        "v": 1, "id": node.id, "name": node.name, "what": what(node), "action": node.action, "reason": node.reason,
        "members": list(node.members),
    }) for node in plan.nodes.values())


def runs_json(runs: Sequence[Run]) -> str:
    """Return runs as JSON, one a line."""
    return "\n".join(json.dumps({"v": 1, "id": run.id, "name": run.manifest["name"], **_facts(run)}) for run in runs)


def runs_text(runs: Sequence[Run]) -> str:
    """Return runs as a table."""
    from tabulate import tabulate

    rows = [[run.id, run.manifest["name"], *_facts(run).values()] for run in runs]
    return tabulate(rows, ["id", "name", "overall", "epoch", "parameters", "seconds", "MB"],
                    floatfmt=("", "", ".3f", "d", ",", ".1f", ".1f")) if rows else "no runs yet"


def _facts(run: Run) -> dict[str, float | None]:
    """Return what a list shows of a run."""
    manifest = run.manifest
    size = sum(entry["size"] for entry in manifest["files"].values())
    return {"overall": manifest["dev"]["overall"], "epoch": manifest["epoch"], "parameters": manifest["parameters"],
            "seconds": manifest["seconds"], "megabytes": round(size / 1e6, 3)}
