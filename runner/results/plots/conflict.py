"""Plot of gradient conflict: cosine similarity of the gradients of each pair of tasks, per run."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ..profile_results import ProfileResults
from . import COLOURS, INK, figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(profile_results: ProfileResults) -> Iterator[tuple[str, Figure]]:
    """Yield one plot of all leaves whose history has gradient conflict."""
    conflicts = {leaf.name or leaf.id: entries for leaf in profile_results.leaves
             if (entries := [entry["conflict"] for entry in profile_results.history(leaf.id) if entry.get("conflict")])}
    if conflicts:
        yield "conflict", _conflict(conflicts)
    elif profile_results.runs:
        profile_results.notes.append("no run measured how its tasks' gradients conflict: conflict is left out")


def _conflict(conflicts: dict[str, list[dict[str, Any]]]) -> Figure:
    """Plot one row per leaf: mean and range over epochs of the cosine of each pair, and share of steps in conflict."""
    pairs = sorted({pair for entries in conflicts.values() for entry in entries for pair in entry["pairs"]})
    picture = figure(9.2, 1.1 + 0.32 * len(conflicts))
    left, right = picture.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    dots: dict[str, Any] = {}
    for row, entries in enumerate(conflicts.values()):
        for number, pair in enumerate(pairs):
            values = [entry["pairs"][pair] for entry in entries if entry["pairs"].get(pair) is not None]
            if values:
                at, colour = row + 0.2 * (number - (len(pairs) - 1) / 2), COLOURS[number % len(COLOURS)]
                left.plot([min(values), max(values)], [at, at], color=colour, linewidth=2, alpha=0.35)
                dots[pair], = left.plot(fmean(values), at, "o", color=colour, markersize=5)
        right.barh(row, fmean([entry["share"] for entry in entries]), height=0.55, color=COLOURS[0])
    left.axvline(0, color=INK, linewidth=0.8)
    left.set_yticks(range(len(conflicts)), list(conflicts))
    left.set_ylim(len(conflicts) - 0.5, -0.5)
    left.set_title("cosine of two tasks' gradients: mean, and range over the epochs")
    right.set_title("steps in conflict")
    right.set_xlim(0, 1)
    right.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    picture.legend(dots.values(), dots, loc="outside lower left", ncols=6)
    return picture
