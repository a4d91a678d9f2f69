"""Plot of apparent against honest (cross-fitted) dev scores."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...tasks.metrics import DIGITS, OVERALL
from ..profile_results import ProfileResults
from ..result import ResultNode
from . import COLOURS, INK, figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(profile_results: ProfileResults) -> Iterator[tuple[str, Figure]]:
    """Yield one plot per suite on which some node has an honest score."""
    for result in profile_results.by_suite.values():
        named = [node for node in profile_results.on(result) if node.name]
        nodes = [node for node in named if node.honest and node.honest[OVERALL] is not None]
        if nodes:
            yield f"honesty-{result.suite}", _honesty(sorted(nodes, key=_honest, reverse=True))


def _honest(node: ResultNode) -> float:
    return (node.honest or {}).get(OVERALL) or 0.0


def _honesty(nodes: list[ResultNode]) -> Figure:
    """Plot one row per node: apparent and honest dev overall, test overall if known, and the optimism."""
    picture = figure(8.4, 1.2 + 0.2 * len(nodes))
    left, right = picture.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    series = (("dev, apparent", [node.scores["dev"][OVERALL] for node in nodes], "o", COLOURS[1], "none"),
              ("dev, honest", [_honest(node) for node in nodes], "o", COLOURS[0], "full"),
              ("test", [node.scores.get("test", {}).get(OVERALL) for node in nodes], "D", COLOURS[2], "none"))
    for label, values, marker, colour, fill in series:
        points = [(value, row) for row, value in enumerate(values) if value is not None]
        if points:
            left.plot(*zip(*points, strict=True), marker, color=colour, fillstyle=fill, label=label, markersize=4.5)
    # Both scores are rounded: what is left of two equal ones is no optimism.
    gaps = [round((node.scores["dev"][OVERALL] or 0.0) - _honest(node), DIGITS - 1) for node in nodes]
    right.barh(range(len(nodes)), gaps, height=0.6, color=COLOURS[1])
    right.axvline(0, color=INK, linewidth=0.8)
    left.set_yticks(range(len(nodes)), [node.name for node in nodes])
    left.set_ylim(len(nodes) - 0.5, -0.5)
    left.set_title("overall")
    right.set_title("apparent less honest")
    picture.legend(loc="outside lower left", ncols=3)
    return picture
