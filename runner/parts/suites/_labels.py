"""Labels as they stand in files: numbers, words, yes and no, several in one cell or one column for each."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from ...tasks.row_files import as_list
from ._source import Source

Label = float | tuple[float, ...]
"""A class, 0 or 1, or a number; of a multi-label task, 0 or 1 for each label."""

YES, NO = ("true", "yes"), ("false", "no")
"""Labels of a binary task besides 1 and 0, in any case."""

SEPARATORS = "|;,"
"""What stands between several labels in one cell."""


def label_of(cells: Sequence[str], source: Source) -> Label:
    """Return the label that the cells of a row stand for. Raise ValueError, with the rest of `row …`, for none."""
    if source.kind == "multilabel":
        return _of_columns(cells, source) if len(cells) > 1 else _of_names(cells[0], source)
    (text,) = cells
    if not text.strip():
        raise ValueError(f"has no `{source.label}`")
    if is_valid(label := parsed(text, source), source):
        return label
    if source.labels:
        expected = f"one of {', '.join(source.labels)}"
    elif source.kind == "regression":
        expected = f"a number from {source.low:g} to {source.high:g}"
    else:
        expected = f"a whole number from 0 to {(source.classes if source.kind == 'classification' else 2) - 1}"
    raise ValueError(f"has the label `{text}` in `{source.label}`; expected {expected}")


def parsed(text: str, source: Source) -> float:
    """Return the number that a text stands for: a class, 0 or 1, or a number; nan for none."""
    text = text.strip()
    if source.labels:
        name = _known(text, source)
        return float(source.labels.index(name)) if name else math.nan
    if source.kind == "binary" and text.lower() in YES + NO:
        return float(text.lower() in YES)
    return number(text)


def number(text: str) -> float:
    """Return the number that a text is, nan for none."""
    try:
        return math.nan if "_" in text else float(text)  # Python reads 1_000, nobody else does
    except ValueError:
        return math.nan


def is_valid(label: float, source: Source) -> bool:
    """Return whether a number is a label of a task with one label an example."""
    if source.kind == "regression":
        return source.low <= label <= source.high
    return label in range(source.task().classes if source.kind == "classification" else 2)


def _known(text: str, source: Source) -> str:
    """Return a label of the suite, also one that pandas wrote as 1.0 beside missing ones; empty for another text."""
    return next((name for name in (text, text.removesuffix(".0")) if name in source.names), "")


def _of_columns(cells: Sequence[str], source: Source) -> Label:
    """Return 0 or 1 for each column of a label. Raise ValueError."""
    label = []
    for column, cell in zip(source.label_columns, cells, strict=True):
        text = cell.strip().lower()
        if not text:
            raise ValueError(f"has no `{column}`")
        label.append(float(text in YES) if text in YES + NO else number(text))
        if label[-1] not in (0, 1):
            raise ValueError(f"has the label `{cell}` in `{column}`; expected 0 or 1")
    return tuple(label)


def _of_names(cell: str, source: Source) -> Label:
    """Return 0 or 1 for each label, of which a cell names those that are 1. Raise ValueError."""
    named = set()
    for text in listed(cell, source.names):
        if not (name := _known(text, source)):
            raise ValueError(f"has the label `{text}` in `{source.label}`; expected any of {', '.join(source.names)}")
        named.add(name)
    return tuple(float(name in named) for name in source.names)


def listed(cell: str, names: Sequence[str]) -> list[str]:
    """Return the labels that a cell lists: as JSON, as Python shows a list, or separated."""
    if (found := as_list(cell)) is not None:
        return found
    separators = "".join(sign for sign in SEPARATORS if not any(sign in name for name in names))
    parts = re.split(f"[{re.escape(separators)}]", cell) if separators else [cell]
    return [text for part in parts if (text := part.strip())]
