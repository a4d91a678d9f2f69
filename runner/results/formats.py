"""Output formats of tables: markdown, plain text, LaTeX, HTML, CSV, JSON."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Callable, Sequence

from ..errors import clean
from .table import Cell, Sheet

LEFT = ("name", "what", "members", "id", "kind")
"""Columns of text."""

_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "—": "---",
          "≈": r"$\approx$", "±": r"$\pm$", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
          **{sign: f"\\{sign}" for sign in "&%$#_{}"}}


def markdown(sheets: Sequence[Sheet]) -> str:
    """Format sheets as markdown tables, each under a heading."""
    parts = []
    for sheet in sheets:
        table = _tabulated(sheet, "pipe", escaped, "**", "**")
        parts.append("\n\n".join([f"## {escaped(sheet.title)}", table, *map(escaped, sheet.notes)]))
    return "\n\n".join(parts) + "\n"


def plain(sheets: Sequence[Sheet]) -> str:
    """Format sheets as aligned text; the best of a column is marked with `>`."""
    parts = []
    for sheet in sheets:
        table = _tabulated(sheet, "simple", clean, "> ", "")
        parts.append("\n\n".join([clean(sheet.title), table, "\n".join(map(clean, sheet.notes))]).rstrip())
    return "\n\n\n".join(parts) + "\n"


def latex(sheets: Sequence[Sheet]) -> str:
    """Format sheets as LaTeX tables for the package booktabs, with notes as comments."""
    parts = []
    for sheet in sheets:
        table = _tabulated(sheet, "latex_raw", _latex, r"\textbf{", "}")
        for rule in ("toprule", "midrule", "bottomrule"):
            table = table.replace(r"\hline", rf"\{rule}", 1)
        parts.append("\n".join([f"% {clean(sheet.title)}", table, *(f"% {clean(note)}" for note in sheet.notes)]))
    return "\n\n".join(parts) + "\n"


def html_(sheets: Sequence[Sheet]) -> str:
    """Format sheets as HTML tables to embed in a page."""
    parts = []
    for sheet in sheets:
        table = _tabulated(sheet, "unsafehtml", _html, "<b>", "</b>")
        table = re.sub(r"(?<=>) +| +(?=</t[dh]>)", "", table)  # alignment blanks are useless in HTML
        table = table.replace("<table>", f"<table>\n<caption>{_html(sheet.title)}</caption>", 1)
        parts.append("\n".join([table, *(f"<p>{_html(note)}</p>" for note in sheet.notes)]) + "\n")
    return "\n".join(parts)


def csv_(sheets: Sequence[Sheet]) -> str:
    """Format all sheets as one CSV table with unrounded numbers; columns that a suite lacks are empty."""
    keys = list(dict.fromkeys(key for sheet in sheets for key in sheet.columns))
    out = io.StringIO()
    writer = csv.DictWriter(out, ["profile", "suite", "sha256", "split", *keys], lineterminator="\n")
    writer.writeheader()
    for sheet in sheets:
        for row in sheet.rows:
            pairs = zip(sheet.columns, row, strict=True)
            writer.writerow({**sheet.facts, **{key: _plain(cell) for key, cell in pairs}})
    return out.getvalue()


def json_(sheets: Sequence[Sheet]) -> str:
    """Format sheets as one JSON list with unrounded numbers."""
    tables = [{**sheet.facts, "rows": [dict(zip(sheet.columns, [cell.value for cell in row], strict=True))
                                      for row in sheet.rows]} for sheet in sheets]
    return json.dumps(tables, indent=1, ensure_ascii=False) + "\n"


FORMATS: dict[str, Callable[[Sequence[Sheet]], str]] = {
    "md": markdown, "csv": csv_, "json": json_, "latex": latex, "html": html_, "plain": plain}

EXACT = ("csv", "json")
"""Formats for programs, with all columns by default."""


def escaped(text: str) -> str:
    """Escape text for a markdown heading or table cell."""
    return re.sub(r"[\\`*\[\]<>|~&$#]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", clean(text))


def _marked(cell: Cell, escape: Callable[[str], str], before: str, after: str) -> str:
    """Format a cell: the best of its column between two marks, a tied one after `≈`."""
    text = escape(cell.text)
    return f"{before}{text}{after}" if cell.is_best else f"{escape('≈')} {text}" if cell.is_tied else text


def _tabulated(sheet: Sheet, style: str, escape: Callable[[str], str], before: str, after: str) -> str:
    """Format the rows of a sheet with a tabulate format that does not escape; `before` and `after` mark the best."""
    from tabulate import tabulate  # here, since not every command shows a table

    titles = [escape(title) for title in sheet.columns.values()]
    rows = [[_marked(cell, escape, before, after) for cell in row] for row in sheet.rows]
    align = ["left" if key in LEFT else "right" for key in sheet.columns]
    return tabulate(rows, titles, tablefmt=style, disable_numparse=True, colalign=align if rows else None)


def _latex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in clean(text))


def _html(text: str) -> str:
    return html.escape(clean(text))


def _plain(cell: Cell) -> str:
    """Format a value for CSV; the ends of an interval are separated by a space."""
    if isinstance(cell.value, tuple):
        return " ".join(map(str, cell.value))
    return "" if cell.value is None else clean(str(cell.value))
