"""Plot of sweeps: every metric over a swept number, with intervals (Figure 4 of the paper)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ..profile_results import ProfileResults
from ..result import ResultNode
from . import COLOURS, columns, figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Points = dict[float, ResultNode]


def draw(profile_results: ProfileResults) -> Iterator[tuple[str, Figure]]:
    """Yield one plot per swept number with two or more points."""
    for (name, key), lines in sorted(_sweeps(profile_results).items()):
        if max(map(len, lines.values())) > 1:
            yield f"sweep-{name}-{key}", _sweep(profile_results, name, key, lines)


def _sweeps(profile_results: ProfileResults) -> dict[tuple[str, str], dict[str, Points]]:
    """Return the points of each sweep and key, one line per combination of the other keys."""
    by_id = profile_results.nodes
    nodes = {name: node for node in by_id.values() for name in (node.name, *profile_results.aliases(node))}
    nodes |= {name: by_id[id] for name, id in profile_results.plan.roots.items() if id in by_id}
    sweeps: dict[tuple[str, str], dict[str, Points]] = {}
    for full, node in sorted(nodes.items()):
        name, _, point = full.partition("@")
        pairs = [pair.split("=", 1) for pair in point.split(",") if "=" in pair]
        for key, value in pairs:
            number = _number(value)
            if number is not None and key != "seed":  # a seed is not a quantity; tables have the mean over seeds
                others = ", ".join("=".join(pair) for pair in pairs if pair[0] != key)
                sweeps.setdefault((name, key), {}).setdefault(others, {})[number] = node
    return sweeps


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _sweep(profile_results: ProfileResults, name: str, key: str, lines: Mapping[str, Points]) -> Figure:
    """Plot one panel per metric on dev, with 95 % intervals where they are known."""
    first = next(iter(next(iter(lines.values())).values()))
    shown = columns(profile_results.suites[first.id].tasks)
    picture = figure(2.3 * len(shown), 2.6)
    panels = picture.subplots(1, len(shown), squeeze=False)[0]
    for (task, title), axes in zip(shown, panels, strict=True):
        for (label, points), colour in zip(lines.items(), COLOURS * len(lines), strict=False):
            values = [(x, node.shown().get("dev", {}).get(task), node.id) for x, node in sorted(points.items())]
            known = [(x, y, profile_results.interval(id, task) or (y, y)) for x, y, id in values if y is not None]
            bars = [[y - low for _, y, (low, _) in known], [high - y for _, y, (_, high) in known]]
            axes.errorbar([x for x, _, _ in known], [y for _, y, _ in known], bars, color=colour, marker="o",
                          capsize=2.5, elinewidth=1, label=label)
        axes.set_title(f"{title} dev")
        axes.set_xlabel(key)
    picture.suptitle(f"{name}: dev scores over {key}, with 95 % intervals", x=0.01, ha="left", fontsize=10)
    if any(lines):
        panels[-1].legend()
    return picture
