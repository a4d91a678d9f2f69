"""Plot of learning curves of each leaf: training loss and dev score of every task by epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ...tasks.metrics import OVERALL
from ..profile_results import ProfileResults
from ..result import Column
from . import COLOURS, FAINT, columns, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(profile_results: ProfileResults) -> Iterator[tuple[str, Figure]]:
    """Yield one plot per leaf with a history."""
    for leaf in profile_results.leaves:
        if history := profile_results.history(leaf.id):
            tasks = profile_results.suites[leaf.id].tasks
            manifest = profile_results.runs[leaf.id].manifest
            yield f"curves-{leaf.name or leaf.id}", _curves(leaf.name, history, manifest, tasks)


def _curves(name: str, history: list[dict[str, Any]], manifest: Any, tasks: tuple[Column, ...]) -> Figure:
    """Plot losses above dev scores, one column per task; the kept epoch is marked."""
    shown, metrics = columns(tasks), {key: metric for task in tasks for key, metric in task.scored().items()}
    picture = figure(2.3 * len(shown), 3.6)
    grid = picture.subplots(2, len(shown), sharex=True, squeeze=False)
    picture.suptitle(f"{name}: {manifest['what']}", x=0.01, ha="left", fontsize=10)
    for (task, title), (above, below) in zip(shown, grid.T, strict=True):
        metric = metrics.get(task)
        above.set_title(title)
        _line(above, [_loss(entry, task) for entry in history], manifest["epoch"], COLOURS[1])
        _line(below, [entry["dev"].get(task) for entry in history], manifest["epoch"], COLOURS[0])
        below.set_xlabel("epoch")
        below.set_ylabel(f"dev {metric.title if metric else OVERALL}")
        above.set_ylabel("train loss" if metric else "train loss, sum")
    return picture


def _loss(entry: dict[str, Any], task: str) -> float | None:
    """Return the mean training loss of a task in an epoch; for the overall, the sum over the tasks."""
    losses: dict[str, float] = entry["losses"]
    return losses.get(task.partition(".")[0]) if task != OVERALL else sum(losses.values()) if losses else None


def _line(axes: Axes, values: list[float | None], kept: int, colour: str) -> None:
    """Draw one curve, with a circle at the kept epoch."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    points = [(epoch, value) for epoch, value in enumerate(values, 1) if value is not None]
    if not points:
        axes.text(0.5, 0.5, "not trained", transform=axes.transAxes, ha="center", color=FAINT)
        return
    axes.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=2.5)
    at = [pair for pair in points if pair[0] == kept]
    axes.plot(*zip(*at, strict=True), "o", color=colour, markersize=8, fillstyle="none", markeredgewidth=1.4)
