"""Plots of results, drawn with matplotlib; each module of this package is one kind of plot.

Its `draw(profile_results)` yields names and figures. If data are missing it yields nothing and adds a note to
`profile_results`. Equal results give equal SVG bytes.
"""

from __future__ import annotations

import importlib.util
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import UsageError
from ...tasks.metrics import OVERALL
from ..profile_results import ProfileResults
from ..result import Column

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Drawing = Callable[[ProfileResults], "Iterator[tuple[str, Figure]]"]

_UNSAFE = re.compile(r"[^\w.,=+@-]", re.ASCII)

COLOURS = ("#0b6e99", "#d9730d", "#448361", "#9065b0", "#c14c8a", "#787774", "#cb912f", "#64473a")
"""Colours of lines, ordered so that they differ in greyscale and for colour-blind readers."""

INK, FAINT, PAPER = "#37352f", "#9b9a97", "#ffffff"

STYLE: Any = {
    "font.family": "DejaVu Sans", "font.size": 9, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": FAINT,
    "axes.titlesize": 10, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.color": "#ececea", "axes.axisbelow": True,
    "xtick.color": INK, "ytick.color": INK, "xtick.labelsize": 8, "ytick.labelsize": 8, "legend.frameon": False,
    "legend.fontsize": 8, "lines.linewidth": 1.8, "lines.markersize": 4, "figure.facecolor": PAPER,
    "svg.hashsalt": "mtrun", "svg.fonttype": "path", "text.parse_math": False, "figure.constrained_layout.use": True,
}
"""Matplotlib style of all plots. The salt makes SVG ids reproducible; text is drawn as paths, without fonts."""


def kinds() -> dict[str, Drawing]:
    """Return the `draw` function of each kind of plot, by module name."""
    names = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))
    return {name: importlib.import_module(f"{__name__}.{name}").draw for name in names}


def drawn(profile_results: ProfileResults, formats: tuple[str, ...] = ("svg",)) -> Iterator[tuple[str, bytes]]:
    """Yield file name and bytes of every plot. Raise UsageError if matplotlib is not installed."""
    if not importlib.util.find_spec("matplotlib"):
        raise UsageError("pictures are drawn with matplotlib; run `pip install 'mtrun[plots]'`")
    import matplotlib

    matplotlib.use("svg")
    for draw in kinds().values():
        with matplotlib.rc_context(STYLE):
            for name, figure in draw(profile_results):
                for format in formats:
                    yield f"{_UNSAFE.sub('_', name)}.{format}", _bytes(figure, format)


def _bytes(figure: Figure, format: str) -> bytes:
    """Save a figure to bytes without date and creator."""
    file = io.BytesIO()
    metadata = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}
    figure.savefig(file, format=format, dpi=160, metadata=metadata[format])
    return file.getvalue()


def columns(tasks: tuple[Column, ...]) -> list[tuple[str, str]]:
    """Return key and title of each metric of each task, and of the overall."""
    return [*(pair for task in tasks for pair in task.titles().items()), (OVERALL, OVERALL)]


def figure(width: float, height: float) -> Figure:
    """Return an empty figure; width and height are in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))
