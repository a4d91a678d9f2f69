"""Sweeps: every metric over a swept number, with intervals, as the paper's Figure 4 has it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ..profile_results import ProfileResults
from ..result import ResultNode
from . import COLOURS, columns, figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Points = dict[float, ResultNode]


def draw(gathered: ProfileResults) -> Iterator[tuple[str, Figure]]:
    """Yield a picture of each swept number that has two points or more."""
    for (name, key), lines in sorted(_sweeps(gathered).items()):
        if max(map(len, lines.values())) > 1:
            yield f"sweep-{name}-{key}", _sweep(gathered, name, key, lines)


def _sweeps(gathered: ProfileResults) -> dict[tuple[str, str], dict[str, Points]]:
    """Return the points of each sweep and key: a line for each choice of the other keys."""
    named = {name: node for node in gathered.nodes.values() for name in (node.name, *gathered.aliases(node))}
    named |= {name: gathered.nodes[id] for name, id in gathered.plan.roots.items() if id in gathered.nodes}
    sweeps: dict[tuple[str, str], dict[str, Points]] = {}
    for full, node in sorted(named.items()):
        name, _, point = full.partition("@")
        pairs = [pair.split("=", 1) for pair in point.split(",") if "=" in pair]
        for key, value in pairs:
            number = _number(value)
            if number is not None and key != "seed":  # a seed is no quantity; tables have the mean over seeds
                others = ", ".join("=".join(pair) for pair in pairs if pair[0] != key)
                sweeps.setdefault((name, key), {}).setdefault(others, {})[number] = node
    return sweeps


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _sweep(gathered: ProfileResults, name: str, key: str, lines: Mapping[str, Points]) -> Figure:
    """Return a panel for each metric on dev; bars are 95 % intervals where the predictions are there."""
    first = next(iter(next(iter(lines.values())).values()))
    shown = columns(gathered.suites[first.id].tasks)
    picture = figure(2.3 * len(shown), 2.6)
    panels = picture.subplots(1, len(shown), squeeze=False)[0]
    for (task, title), axes in zip(shown, panels, strict=True):
        for (label, points), colour in zip(lines.items(), COLOURS * len(lines), strict=False):
            values = [(x, node.shown().get("dev", {}).get(task), node.id) for x, node in sorted(points.items())]
            there = [(x, y, gathered.interval(id, task) or (y, y)) for x, y, id in values if y is not None]
            bars = [[y - low for _, y, (low, _) in there], [high - y for _, y, (_, high) in there]]
            axes.errorbar([x for x, _, _ in there], [y for _, y, _ in there], bars, color=colour, marker="o",
                          capsize=2.5, elinewidth=1, label=label)
        axes.set_title(f"{title} dev")
        axes.set_xlabel(key)
    picture.suptitle(f"{name}: dev scores over {key}, with 95 % intervals", x=0.01, ha="left", fontsize=10)
    if any(lines):
        panels[-1].legend()
    return picture
