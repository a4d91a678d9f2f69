"""Plot of dev overall against training time of each system."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ...tasks.metrics import OVERALL
from ..profile_results import ProfileResults
from ..result import ResultNode
from . import COLOURS, FAINT, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Point = tuple[float, float, str]
"""Seconds, score and name."""


def draw(profile_results: ProfileResults) -> Iterator[tuple[str, Figure]]:
    """Yield one plot per suite; the cost of an ensemble is the total of its leaves."""
    for result in profile_results.by_suite.values():
        named = [node for node in profile_results.on(result) if node.name]
        leaves, trees = ([point for node in named if node.kind == kind and (point := _point(profile_results, node))]
                         for kind in ("leaf", "ensemble"))
        if len(leaves) + len(trees) > 1:
            yield f"costs-{result.suite}", _costs(leaves, trees)


def _point(profile_results: ProfileResults, node: ResultNode) -> Point | None:
    """Return the point of a node, or None if its score or the cost of one of its leaves is unknown."""
    score, seconds = node.shown().get("dev", {}).get(OVERALL), profile_results.cost(node, "seconds")
    return None if score is None or seconds is None else (seconds, score, node.name)


def _costs(leaves: list[Point], trees: list[Point]) -> Figure:
    """Plot all points, with the Pareto front as a line."""
    picture = figure(7.4, 4.6)
    axes = picture.subplots()
    for points, label, marker, colour in ((leaves, "model", "o", COLOURS[0]), (trees, "ensemble", "s", COLOURS[1])):
        axes.plot([x for x, _, _ in points], [y for _, y, _ in points], marker, color=colour, label=label, markersize=6)
    everything = sorted([*leaves, *trees], key=lambda point: (point[0], -point[1]))
    best: list[Point] = []
    for point in everything:
        best += [point] if not best or point[1] > best[-1][1] else []
    axes.step([x for x, _, _ in best], [y for _, y, _ in best], where="post", color=FAINT, linewidth=1, zorder=0)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda seconds, _: f"{seconds:,g}")
    axes.xaxis.set_minor_formatter(lambda seconds, _: f"{seconds:,g}" if f"{seconds:e}"[0] in "235" else "")
    axes.set_xlabel("seconds of training, of all models together")
    axes.set_ylabel("dev overall")
    axes.margins(x=0.15, y=0.1)
    axes.legend(loc="lower right")
    others = [point for point in reversed(everything) if point not in best]
    _label(axes, picture.get_size_inches() * 72, [*best, *others], len(best))
    return picture


def _label(axes: Axes, size: Any, points: list[Point], bold: int) -> None:
    """Label points with their names, the first `bold` ones in bold; names that would overlap others are omitted.

    `size` is the size of the figure in typographic points; a letter is about 4 wide and 7 high.
    """
    marks = [axes.transLimits.transform(axes.transScale.transform((x, y))) * size for x, y, _ in points]
    taken = [(x - 3, y - 3, x + 3, y + 3) for x, y in marks]
    for number, ((x, y), (seconds, score, name)) in enumerate(zip(marks, points, strict=True)):
        wide = 4.2 * len(name)
        for dx, dy in ((5, -3), (-5 - wide, -3), (-wide / 2, 6), (-wide / 2, -12), (4, 5), (4, -11)):
            box = (x + dx, y + dy, x + dx + wide, y + dy + 7)
            if not any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken):
                taken.append(box)
                axes.annotate(name, (seconds, score), (dx, dy), textcoords="offset points", fontsize=7,
                              weight="bold" if number < bold else "normal")
                break
