"""Pictures of results, drawn with matplotlib: a file of this folder is a kind of picture.

Its `draw(gathered)` yields names and figures. It yields nothing, and adds a note to the gathered, where the data for it
are missing. The same gathered gives the same bytes of SVG.
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
"""Colours of lines, told apart in grey and by those who see few colours by their order from dark to light."""

INK, FAINT, PAPER = "#37352f", "#9b9a97", "#ffffff"

STYLE: Any = {
    "font.family": "DejaVu Sans", "font.size": 9, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": FAINT,
    "axes.titlesize": 10, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.color": "#ececea", "axes.axisbelow": True,
    "xtick.color": INK, "ytick.color": INK, "xtick.labelsize": 8, "ytick.labelsize": 8, "legend.frameon": False,
    "legend.fontsize": 8, "lines.linewidth": 1.8, "lines.markersize": 4, "figure.facecolor": PAPER,
    "svg.hashsalt": "mtrun", "svg.fonttype": "path", "text.parse_math": False, "figure.constrained_layout.use": True,
}
"""The look of all pictures. Ids in an SVG are made of the salt; text is drawn, so that it looks the same anywhere."""


def kinds() -> dict[str, Drawing]:
    """Return the kinds of pictures by the names of their files."""
    names = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))
    return {name: importlib.import_module(f"{__name__}.{name}").draw for name in names}


def drawn(gathered: ProfileResults, formats: tuple[str, ...] = ("svg",)) -> Iterator[tuple[str, bytes]]:
    """Yield the file name and bytes of every picture; raise UsageError where matplotlib is not installed."""
    if not importlib.util.find_spec("matplotlib"):
        raise UsageError("pictures are drawn with matplotlib; run `pip install 'mtrun[plots]'`")
    import matplotlib

    matplotlib.use("svg")
    for draw in kinds().values():
        with matplotlib.rc_context(STYLE):
            for name, figure in draw(gathered):
                for format in formats:
                    yield f"{_UNSAFE.sub('_', name)}.{format}", _bytes(figure, format)


def _bytes(figure: Figure, format: str) -> bytes:
    """Return a figure as a file without date and maker."""
    file = io.BytesIO()
    lacking = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}
    figure.savefig(file, format=format, dpi=160, metadata=lacking[format])
    return file.getvalue()


def columns(tasks: tuple[Column, ...]) -> list[tuple[str, str]]:
    """Return the name and the title of each task and of the overall."""
    return [*((task.name, task.title) for task in tasks), (OVERALL, OVERALL)]


def figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))
