"""Plot of trees: each ensemble with the dev scores of its nodes (Figure 3 of the paper)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...tasks.metrics import OVERALL
from ..profile_results import ProfileResults
from ..result import ResultNode
from . import COLOURS, FAINT, INK, PAPER, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE, TALL, ROW, GAP = 2.1, 0.4, 0.52, 0.8
"""Width and height of a box, height of a row, and gap between columns, in inches."""

ROOM = 19
"""Maximal length of a name in full font size; longer names are smaller."""


@dataclass(frozen=True)
class Box:
    """A node with its column and row, the root in column 0; `node` is None for a summary of unused members."""

    node: ResultNode | None
    role: str
    text: str
    below: str
    column: int
    row: float
    members: tuple[Box, ...] = ()
    task: str = OVERALL
    """Task that the node is used for: its own role, or the nearest role above it."""

    @property
    def score(self) -> float | None:
        """Dev score on `task`, or None."""
        return _score(self.node, self.task) if self.node else None

    def all(self) -> Iterator[Box]:
        """Yield the box and all below it."""
        yield self
        for member in self.members:
            yield from member.all()


def _score(node: ResultNode, task: str) -> float | None:
    return node.shown().get("dev", {}).get(task)


def draw(profile_results: ProfileResults) -> Iterator[tuple[str, Figure]]:
    """Yield one plot per ensemble."""
    for result in profile_results.results:
        if result.tree.members:
            yield f"tree-{result.tree.name}", _tree(result.tree)


def _tree(root: ResultNode) -> Figure:
    """Plot a tree with its root at the left and one leaf per row."""
    rows = iter(range(10**6))
    top = _placed(root, "", 0, rows, OVERALL)
    height, depth = next(rows), max(box.column for box in top.all()) + 1
    picture = figure(depth * (WIDE + GAP) - GAP + 0.2, height * ROW + 0.1)
    picture.set_layout_engine("none")
    axes = picture.add_axes((0, 0, 1, 1))
    axes.set_xlim(-0.1, depth * (WIDE + GAP) - GAP + 0.1)
    axes.set_ylim(height * ROW - ROW / 2 + 0.05, -ROW / 2 - 0.05)
    axes.axis("off")
    scores = [score for box in top.all() if (score := box.score) is not None]
    for box in top.all():
        _draw(axes, box, min(scores, default=0.0), max(scores, default=1.0))
    return picture


def _placed(node: ResultNode, role: str, column: int, rows: Iterator[int], task: str) -> Box:
    """Return the box of a node with the boxes of its members; an ensemble is centred on its members."""
    used = node.used()
    relevant = [(role, member) for role, member in used
             if (role or task) == OVERALL or _score(member, role or task) is not None] or used
    members = [_placed(member, role, column + 1, rows, role or task) for role, member in relevant]
    for count, reason in ((len(used) - len(relevant), f"without {task}"), (len(node.unused()), "not chosen")):
        if count:
            members.append(Box(None, "", f"{count} {reason}", "", column + 1, next(rows)))
    row = (members[0].row + members[-1].row) / 2 if members else next(rows)
    return Box(node, role, node.name or node.what, node.what if node.name else "", column, row, tuple(members), task)


def _draw(axes: Axes, box: Box, low: float, high: float) -> None:
    """Draw a box and the edges to its members; a higher score gives a stronger colour."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import FancyBboxPatch

    x, y, score = box.column * (WIDE + GAP), box.row * ROW, box.score
    share = 0.06 + 0.34 * (0.0 if score is None else (score - low) / ((high - low) or 1.0))
    fill = tuple(1 - (1 - part) * share for part in to_rgb(COLOURS[0])) if box.node else PAPER
    for member in box.members:
        _edge(axes, (x + WIDE, y), (x + WIDE + GAP, member.row * ROW), member)
    axes.add_patch(FancyBboxPatch((x, y - TALL / 2), WIDE, TALL, "round,pad=0,rounding_size=0.06", facecolor=fill,
                                  edgecolor=COLOURS[0] if box.node else FAINT, linewidth=0.9))
    name = _cut(box.text, 24)
    axes.text(x + 0.09, y - 0.085 * bool(box.below), name, va="center", fontsize=8.5 * min(1, ROOM / len(name)),
              color=INK if box.node else FAINT)
    axes.text(x + 0.09, y + 0.09, _cut(box.below, 32), va="center", fontsize=6, color=INK)
    if box.node:
        axes.text(x + WIDE - 0.09, y, "—" if score is None else f"{score:.3f}", va="center", ha="right", fontsize=9.5,
                  weight="bold")


def _edge(axes: Axes, start: tuple[float, float], end: tuple[float, float], member: Box) -> None:
    """Draw the edge from a node to a member, labelled with its role; dashed if the member is unused."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    middle, turn = start[0] + GAP * 0.2, start[0] + GAP * 0.4
    path = Path([start, (middle, start[1]), (middle, end[1]), (turn, end[1]), end], [1, 4, 4, 4, 2])
    colour, style = (COLOURS[0], "-") if member.node else (FAINT, (0, (2, 2)))
    axes.add_patch(PathPatch(path, facecolor="none", edgecolor=colour, linewidth=0.9, linestyle=style, zorder=0))
    if member.role:
        axes.text(end[0] - 0.07, end[1], member.role, ha="right", va="center", fontsize=6.5,
                  bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 0.8})


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
