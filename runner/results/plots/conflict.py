"""Gradient conflict: how the tasks' gradients point to one another in every run; it shows if surgery can help."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ..profile_results import ProfileResults
from . import COLOURS, INK, figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(gathered: ProfileResults) -> Iterator[tuple[str, Figure]]:
    """Yield one picture of all leaves that measured it."""
    found = {leaf.name or leaf.id: entries for leaf in gathered.leaves
             if (entries := [entry["conflict"] for entry in gathered.history(leaf.id) if entry.get("conflict")])}
    if found:
        yield "conflict", _conflict(found)
    elif gathered.runs:
        gathered.notes.append("no run measured how its tasks' gradients conflict: conflict is left out")


def _conflict(histories: dict[str, list[dict[str, Any]]]) -> Figure:
    """Return a row a leaf: the mean cosine of each pair over the run, dots from first to last epoch, and the share."""
    pairs = sorted({pair for entries in histories.values() for entry in entries for pair in entry["pairs"]})
    picture = figure(9.2, 1.1 + 0.32 * len(histories))
    left, right = picture.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    dots: dict[str, Any] = {}
    for row, entries in enumerate(histories.values()):
        for number, pair in enumerate(pairs):
            values = [entry["pairs"][pair] for entry in entries if entry["pairs"].get(pair) is not None]
            if values:
                at, colour = row + 0.2 * (number - (len(pairs) - 1) / 2), COLOURS[number % len(COLOURS)]
                left.plot([min(values), max(values)], [at, at], color=colour, linewidth=2, alpha=0.35)
                dots[pair], = left.plot(fmean(values), at, "o", color=colour, markersize=5)
        right.barh(row, fmean([entry["share"] for entry in entries]), height=0.55, color=COLOURS[0])
    left.axvline(0, color=INK, linewidth=0.8)
    left.set_yticks(range(len(histories)), list(histories))
    left.set_ylim(len(histories) - 0.5, -0.5)
    left.set_title("cosine of two tasks' gradients: mean, and range over the epochs")
    right.set_title("steps in conflict")
    right.set_xlim(0, 1)
    right.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    picture.legend(dots.values(), dots, loc="outside lower left", ncols=6)
    return picture
