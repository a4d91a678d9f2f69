"""A plan as a graph: every node once, however many ensembles share it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from textwrap import wrap

from ...errors import clean
from ...plan.plan import Plan
from ...results.formats import escaped
from ...results.result import Result, ResultNode
from ...tasks.metrics import OVERALL

COLUMNS = 100

COLOURS = {"reuse": "#d4edda", "stale": "#ffe8b3", "train": "#cfe2ff", "resume": "#cff4fc", "score": "#f2f2f2",
           "spare": "#ffffff"}
"""Fill of a node by what is to be done with it."""


def mermaid(plan: Plan) -> str:
    """Return a Mermaid flowchart inside a fence, to be pasted into markdown."""
    lines = ["```mermaid", "flowchart TD"]
    for node in plan.nodes.values():
        opening, closing = ("([", "])") if node.members else ("[", "]")
        label = f"{_entity(node.title)}<br/>{node.state}"
        lines.append(f'    n{node.id}{opening}"{label}"{closing}:::{node.state}')
    for above, below, roles, times in _edges(plan):
        arrow = f'-->|"{_entity(roles or times)}"|' if roles or times else "-->"
        lines.append(f"    n{above} {arrow} n{below}")
    used = {node.state for node in plan.nodes.values()}
    lines += [f"    classDef {state} fill:{colour},stroke:#666,color:#000"
              for state, colour in COLOURS.items() if state in used]
    return "\n".join([*lines, "```"])


def trees(results: Sequence[Result]) -> bytes:
    """Return a page of markdown with a flowchart of each ensemble: dev scores at the nodes, chosen members only."""
    parts = [f"## {escaped(result.tree.name)}\n\n{scored(result.tree)}\n" for result in results if result.tree.members]
    return "\n".join(["# Trees\n", *parts]).encode()


def scored(root: ResultNode) -> str:
    """Return a Mermaid flowchart of a scored tree inside a fence; each node is drawn once."""
    nodes, edges = {root.id: root}, dict[tuple[str, str], list[str]]()
    todo = [root]
    while todo:
        above = todo.pop(0)
        for role, member in above.used():
            edges.setdefault((above.id, member.id), []).extend([role] if role else [])
            todo += [member] if member.id not in nodes else []
            nodes[member.id] = member
    lines = ["```mermaid", "flowchart LR"]
    for node in nodes.values():
        opening, closing = ("([", "])") if node.members else ("[", "]")
        score = node.shown().get("dev", {}).get(OVERALL)
        label = f"{_entity(node.name or node.what)}<br/><b>{'#8212;' if score is None else f'{score:.3f}'}</b>"
        lines.append(f'    n{node.id}{opening}"{label}"{closing}')
    for (above_id, below), roles in edges.items():
        lines.append(f'    n{above_id} -->|"{_entity(", ".join(roles))}"| n{below}' if roles else
                     f"    n{above_id} --> n{below}")
    return "\n".join([*lines, "```"])


def dot(plan: Plan) -> str:
    """Return a Graphviz digraph."""
    lines = ["digraph plan {", '    node [shape=box, style="filled,rounded", fontname="sans-serif"];']
    for node in plan.nodes.values():
        label = _quoted(node.title, node.state)
        lines.append(f'    "{node.id}" [label={label}, fillcolor="{COLOURS[node.state]}"];')
    for above, below, roles, times in _edges(plan):
        label = f" [label={_quoted(roles or times)}]" if roles or times else ""
        lines.append(f'    "{above}" -> "{below}"{label};')
    return "\n".join([*lines, "}"])


def text(plan: Plan) -> str:
    """Return each node with its members behind it, the roots first."""
    titles = {id: clean(node.title) for id, node in plan.nodes.items()}
    width = max(map(len, titles.values()))
    members: dict[str, list[str]] = {}
    for above, below, roles, times in _edges(plan):
        words = ([f"{clean(roles)}:"] if roles else []) + [titles[below]] + ([times] if times else [])
        members.setdefault(above, []).append(" ".join(words))
    return "\n".join(line for node in reversed(plan.nodes.values())
                     for line in _wrapped(f"{node.state:6}  {titles[node.id]:{width}}  ", members.get(node.id, [])))


def _wrapped(head: str, items: list[str]) -> list[str]:
    """Return a line for a person, its items on further lines where they are many."""
    return wrap(", ".join(items), COLUMNS, initial_indent=head, subsequent_indent=" " * len(head),
                break_long_words=False, break_on_hyphens=False) or [head.rstrip()]


STYLES = {"mermaid": mermaid, "dot": dot, "text": text}


def _edges(plan: Plan) -> Iterator[tuple[str, str, str, str]]:
    """Yield each pair of a node and a member once, with the member's roles and, where it counts `n` times, `xn`."""
    for node in plan.nodes.values():
        for member, count in Counter(id for _, id in node.below).items():
            roles = [role for role, other in node.below if role and other == member]
            yield node.id, member, ", ".join(roles), f"x{count}" if count > max(1, len(roles)) else ""


def _entity(value: str) -> str:
    """Return text for a Mermaid label: all but plain characters by their numbers."""
    return re.sub(r"[^\w .,:=+@/-]", lambda found: f"#{ord(found[0])};", clean(value), flags=re.ASCII)


def _quoted(*rows: str) -> str:
    """Return lines of text as a DOT string."""
    return '"' + "\\n".join(clean(row).replace("\\", "\\\\").replace('"', '\\"') for row in rows) + '"'
