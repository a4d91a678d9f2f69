"""A plan for people and for programs: the tree, what is to be trained and why, time and disk; JSON lines."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from textwrap import wrap

from ...errors import clean
from ...plan.forecast import LATEST, Forecast, LeafForecast
from ...plan.plan import NEW, Plan, PlannedNode

COLUMNS = 100

SHOWN = 8
"""How many differences of one leaf are printed; JSON has them all."""

EQUAL = "every field is equal: a part, or mtrun, has another version"


def text(plan: Plan, forecast: Forecast) -> str:
    """Return a plan as trees, the differences from the nearest runs, and totals; a shared node is told once."""
    told: set[str] = set()
    lines = [line for root in dict.fromkeys(plan.roots.values()) for line in _branch(plan, root, "", "", "", told)]
    width = max(len(title) for title, _ in lines)
    out = []
    for title, node in lines:
        note = "as above" if node is None else f"{node.state:6}  {node.id}  {_note(node, forecast.leaves.get(node.id))}"
        out.append(f"{title:{width}}  {note}".rstrip())
    out += ["", *_reasons(plan, forecast), *plan.settled, *_totals(plan, forecast)]
    return "\n".join(clean(line) for line in out)


def _branch(plan: Plan, identity: str, first: str, rest: str, role: str, told: set[str]
            ) -> Iterator[tuple[str, PlannedNode | None]]:
    """Yield the drawn title of a node and of all below it, each with the node, or None where it was told above."""
    node = plan.nodes[identity]
    yield f"{first}{role and f'{role}: '}{node.title}", None if identity in told else node
    if identity in told:
        return
    told.add(identity)
    for number, (inner, member) in enumerate(node.below, 1):
        turn, bar = ("└─ ", "   ") if number == len(node.below) else ("├─ ", "│  ")
        yield from _branch(plan, member, rest + turn, rest + bar, inner, told)


def _note(node: PlannedNode, leaf: LeafForecast | None) -> str:
    """Return what is to be said of one node besides its state."""
    if node.stale:
        return node.reason
    if leaf is None:
        return ""
    about = "" if leaf.seconds is None else f"~{duration(leaf.seconds)}"
    why = "" if node.reason == NEW else node.reason
    if leaf.progress:
        why = "stopped at step {} of {}".format(*leaf.progress)
    return f"{about:8}  {why}"


def _reasons(plan: Plan, forecast: Forecast) -> Iterator[str]:
    """Yield what differs from the nearest runs: once what differs for all leaves, then what else does for some."""
    told = {identity: _told(leaf) for identity, leaf in forecast.leaves.items() if leaf.nearest}
    if not told:
        return
    yield "what differs from the nearest runs"
    first, *others = told.values()
    shared = [one for one in first if all(one in found for found in others)] if others else []
    yield from _group(f"in all {len(told)}", shared)
    groups: dict[tuple[str, ...], list[str]] = {}
    for identity, found in told.items():
        if own := tuple(one for one in found if one not in shared):
            groups.setdefault(own, []).append(_pair(plan.nodes[identity], forecast.leaves[identity]))
    for own, pairs in groups.items():
        yield from _group("; ".join(pairs), own)
    yield ""


def _told(leaf: LeafForecast) -> list[str]:
    """Return the differences of a leaf, those first that a file sets."""
    return [str(one) for one in sorted(leaf.differences, key=lambda one: one.place is None)] or [EQUAL]


def _pair(node: PlannedNode, leaf: LeafForecast) -> str:
    """Return a leaf and its nearest run, whose name is left out where it is the same."""
    assert leaf.nearest
    name = "" if leaf.nearest.name == node.title else f"{leaf.nearest.name} "
    return f"{node.title}, from {name}{leaf.nearest.id}"


def _group(title: str, differences: Sequence[str]) -> Iterator[str]:
    """Yield differences under a title; nothing where there are none."""
    if differences:
        yield from wrap(title, COLUMNS, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    yield from (f"      {one}" for one in differences[:SHOWN])
    if len(differences) > SHOWN:
        yield f"      and {len(differences) - SHOWN} more; --json has them all"


def _totals(plan: Plan, forecast: Forecast) -> Iterator[str]:
    """Yield how much there is to do, how long it will take and what it will need."""
    counts = Counter(node.state for node in plan.nodes.values())
    says = {"reuse": "to reuse", "stale": "to reuse though stale", "resume": "to resume", "train": "to train",
            "score": "to score", "spare": "not needed"}
    yield ", ".join(f"{counts[state]} {words}" for state, words in says.items() if counts[state])
    known = len(forecast.leaves) - forecast.unknown
    if known:
        time = f"about {duration(forecast.seconds)} with -j {forecast.jobs}, {size(forecast.bytes)} on disk"
        yield time + (f"; besides {forecast.unknown} of unknown time" if forecast.unknown else "")
    elif forecast.leaves:
        yield "time unknown: nothing like this was trained on this device yet"
    if forecast.runs > LATEST:
        yield f"compared with the latest {LATEST} of {forecast.runs:,} runs"


def duration(seconds: float) -> str:
    """Return a time as a person would say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def size(count: int) -> str:
    """Return a number of bytes as a person would say it."""
    unit, name = next((u, n) for u, n in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if count >= u or n == "kB")
    return f"{count / unit:.1f} {name}"


def lines(plan: Plan, forecast: Forecast) -> str:
    """Return a plan as JSON: one line for each node, children first, and a last one for the whole."""
    out = [{"v": 1, "event": "node", **_node(plan, node, forecast.leaves.get(node.id))} for node in plan.nodes.values()]
    counts = Counter(node.state for node in plan.nodes.values())
    out.append({
        "v": 1, "event": "planned", "profile": plan.profile, "roots": plan.roots, "nodes": len(plan.nodes),
        "train": len(plan.todo()), "states": dict(sorted(counts.items())), "jobs": forecast.jobs,
        "seconds": round(forecast.seconds, 1), "bytes": forecast.bytes, "unknown": forecast.unknown,
        "runs": forecast.runs, "settled": plan.settled, "notes": plan.notes,
    })
    return "\n".join(json.dumps(line) for line in out)


def _node(plan: Plan, node: PlannedNode, leaf: LeafForecast | None) -> dict[str, object]:
    """Return all that is known of one node."""
    nearest = leaf and leaf.nearest
    return {
        "id": node.id, "name": node.name, "what": node.what, "action": node.action, "reason": node.reason,
        "stale": node.stale, "members": node.members, "roles": node.roles, "needs": node.needs, "spare": node.spare,
        "suite": {"name": plan.suites.get(node.suite, ""), "sha256": node.suite},
        "nearest": nearest and {"id": nearest.id, "name": nearest.name},
        "differences": [one.to_json() for one in leaf.differences] if leaf else [],
        "seconds": leaf and leaf.seconds, "bytes": leaf and leaf.bytes, "progress": leaf and leaf.progress,
    }
