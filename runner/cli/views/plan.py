"""Render a plan as text or JSON Lines: trees, actions and their reasons, forecast of time and disk space."""

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
"""Maximal number of differences printed for one leaf; JSON has all."""

EQUAL = "every field is equal: a part, or mtrun, has another version"


def text(plan: Plan, forecast: Forecast) -> str:
    """Render a plan as trees, differences from the nearest runs, and totals; a shared node is described once."""
    printed: set[str] = set()
    lines = [line for root in dict.fromkeys(plan.roots.values()) for line in _branch(plan, root, "", "", "", printed)]
    width = max(len(title) for title, _ in lines)
    out = []
    for title, node in lines:
        note = "as above" if node is None else f"{node.state:6}  {node.id}  {_note(node, forecast.leaves.get(node.id))}"
        out.append(f"{title:{width}}  {note}".rstrip())
    out += ["", *_reasons(plan, forecast), *plan.settled, *_totals(plan, forecast)]
    return "\n".join(clean(line) for line in out)


def _branch(plan: Plan, identity: str, first: str, rest: str, role: str, printed: set[str]
            ) -> Iterator[tuple[str, PlannedNode | None]]:
    """Yield the indented title of a node and of all below it, each with the node, or None if it was printed before."""
    node = plan.nodes[identity]
    yield f"{first}{role and f'{role}: '}{node.title}", None if identity in printed else node
    if identity in printed:
        return
    printed.add(identity)
    for number, (inner, member) in enumerate(node.below, 1):
        turn, bar = ("└─ ", "   ") if number == len(node.below) else ("├─ ", "│  ")
        yield from _branch(plan, member, rest + turn, rest + bar, inner, printed)


def _note(node: PlannedNode, leaf: LeafForecast | None) -> str:
    """Return the estimated time of a node and the reason for its state."""
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
    """Yield the differences from the nearest runs: first those of all leaves, then those of some."""
    reasons = {identity: _differences(leaf) for identity, leaf in forecast.leaves.items() if leaf.nearest}
    if not reasons:
        return
    yield "what differs from the nearest runs"
    first, *others = reasons.values()
    shared = [each for each in first if all(each in other for other in others)] if others else []
    yield from _group(f"in all {len(reasons)}", shared)
    groups: dict[tuple[str, ...], list[str]] = {}
    for identity, leaf_reasons in reasons.items():
        if own := tuple(each for each in leaf_reasons if each not in shared):
            groups.setdefault(own, []).append(_pair(plan.nodes[identity], forecast.leaves[identity]))
    for own, pairs in groups.items():
        yield from _group("; ".join(pairs), own)
    yield ""


def _differences(leaf: LeafForecast) -> list[str]:
    """Return the differences of a leaf from its nearest run, those set in a file first."""
    return [str(each) for each in sorted(leaf.differences, key=lambda each: each.place is None)] or [EQUAL]


def _pair(node: PlannedNode, leaf: LeafForecast) -> str:
    """Return the title of a leaf and its nearest run, whose name is left out where it is the same."""
    assert leaf.nearest
    name = "" if leaf.nearest.name == node.title else f"{leaf.nearest.name} "
    return f"{node.title}, from {name}{leaf.nearest.id}"


def _group(title: str, differences: Sequence[str]) -> Iterator[str]:
    """Yield differences under a title, the first SHOWN of them; nothing where there are none."""
    if differences:
        yield from wrap(title, COLUMNS, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    yield from (f"      {each}" for each in differences[:SHOWN])
    if len(differences) > SHOWN:
        yield f"      and {len(differences) - SHOWN} more; --json has them all"


def _totals(plan: Plan, forecast: Forecast) -> Iterator[str]:
    """Yield the number of nodes by state, the estimated time and disk space."""
    counts = Counter(node.state for node in plan.nodes.values())
    words = {"reuse": "to reuse", "stale": "to reuse though stale", "resume": "to resume", "train": "to train",
             "score": "to score", "spare": "not needed"}
    yield ", ".join(f"{counts[state]} {label}" for state, label in words.items() if counts[state])
    known = len(forecast.leaves) - forecast.unknown
    if known:
        time = f"about {duration(forecast.seconds)} with -j {forecast.jobs}, {size(forecast.bytes)} on disk"
        yield time + (f"; besides {forecast.unknown} of unknown time" if forecast.unknown else "")
    elif forecast.leaves:
        yield "time unknown: nothing like this was trained on this device yet"
    if forecast.by_size:
        memory = f"{size(round(forecast.megabytes * 1e6))} of memory a leaf"
        disk = "" if known else f", {size(forecast.bytes)} on disk"
        yield f"by the size of the encoder: about {memory}{disk}"
    if forecast.runs > LATEST:
        yield f"compared with the latest {LATEST} of {forecast.runs:,} runs"


def duration(seconds: float) -> str:
    """Format a number of seconds as seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def size(count: int) -> str:
    """Format a number of bytes in kB, MB or GB."""
    unit, name = next((u, n) for u, n in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if count >= u or n == "kB")
    return f"{count / unit:.1f} {name}"


def json_lines(plan: Plan, forecast: Forecast) -> str:
    """Render a plan as JSON Lines: one object per node, children first, and a last one of totals."""
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
    """Return a node as plain JSON."""
    nearest = leaf and leaf.nearest
    return {
        "id": node.id, "name": node.name, "what": node.what, "action": node.action, "reason": node.reason,
        "stale": node.stale, "members": node.members, "roles": node.roles, "needs": node.needs, "spare": node.spare,
        "suite": {"name": plan.suites.get(node.suite, ""), "sha256": node.suite},
        "nearest": nearest and {"id": nearest.id, "name": nearest.name},
        "differences": [each.to_json() for each in leaf.differences] if leaf else [],
        "seconds": leaf and leaf.seconds, "bytes": leaf and leaf.bytes, "progress": leaf and leaf.progress,
    }
