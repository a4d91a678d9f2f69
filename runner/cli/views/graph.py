"""Draw plans and results as graphs in Mermaid, Graphviz or text; a shared node is drawn once."""

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
"""Fill colour of a node by its state."""


def mermaid(plan: Plan) -> str:
    """Draw a plan as a Mermaid flowchart in a fenced Markdown block."""
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
    """Return a Markdown page with a flowchart of each ensemble: nodes with dev scores, chosen members only."""
    trees = [result.tree for result in results if result.tree.members]
    parts = [f"## {escaped(tree.name)}\n\n{result_mermaid(tree)}\n" for tree in trees]
    return "\n".join(["# Trees\n", *parts]).encode()


def result_mermaid(root: ResultNode) -> str:
    """Draw the tree of a result as a Mermaid flowchart in a fenced Markdown block."""
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
    """Draw a plan as a Graphviz digraph."""
    lines = ["digraph plan {", '    node [shape=box, style="filled,rounded", fontname="sans-serif"];']
    for node in plan.nodes.values():
        label = _quoted(node.title, node.state)
        lines.append(f'    "{node.id}" [label={label}, fillcolor="{COLOURS[node.state]}"];')
    for above, below, roles, times in _edges(plan):
        label = f" [label={_quoted(roles or times)}]" if roles or times else ""
        lines.append(f'    "{above}" -> "{below}"{label};')
    return "\n".join([*lines, "}"])


def text(plan: Plan) -> str:
    """Render each node of a plan followed by its members, roots first."""
    titles = {id: clean(node.title) for id, node in plan.nodes.items()}
    width = max(map(len, titles.values()))
    members: dict[str, list[str]] = {}
    for above, below, roles, times in _edges(plan):
        words = ([f"{clean(roles)}:"] if roles else []) + [titles[below]] + ([times] if times else [])
        members.setdefault(above, []).append(" ".join(words))
    return "\n".join(line for node in reversed(plan.nodes.values())
                     for line in _wrapped(f"{node.state:6}  {titles[node.id]:{width}}  ", members.get(node.id, [])))


def _wrapped(head: str, items: list[str]) -> list[str]:
    """Return comma-separated items after a head, wrapped to COLUMNS with a hanging indent."""
    return wrap(", ".join(items), COLUMNS, initial_indent=head, subsequent_indent=" " * len(head),
                break_long_words=False, break_on_hyphens=False) or [head.rstrip()]


STYLES = {"mermaid": mermaid, "dot": dot, "text": text}


def _edges(plan: Plan) -> Iterator[tuple[str, str, str, str]]:
    """Yield each edge once: node, member, roles of the member and, if it is a member `n` times, `xn`."""
    for node in plan.nodes.values():
        for member, count in Counter(id for _, id in node.below).items():
            roles = [role for role, other in node.below if role and other == member]
            yield node.id, member, ", ".join(roles), f"x{count}" if count > max(1, len(roles)) else ""


def _entity(value: str) -> str:
    """Escape text for a Mermaid label: special characters as numeric entities."""
    return re.sub(r"[^\w .,:=+@/-]", lambda match: f"#{ord(match[0])};", clean(value), flags=re.ASCII)


def _quoted(*rows: str) -> str:
    """Quote lines of text as a DOT string."""
    return '"' + "\\n".join(clean(row).replace("\\", "\\\\").replace('"', '\\"') for row in rows) + '"'
