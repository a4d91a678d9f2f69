"""Merge TOML tables key by key; values of upper tables replace those of lower ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from ..errors import Place, Problem, SpecError
from .toml import Array, Table, parse

COMMAND_LINE = "the command line"
"""File name of the places of `--set` values."""


def merged(lower: Table, upper: Table, headers: bool = True) -> Table:
    """Merge `upper` over `lower` into a new table; a table with another `type` replaces the lower one as a whole.

    A table in both has the place of the upper one; where `headers` is false, of the lower one, as for `--set`.
    """
    replaces = "type" in upper and upper["type"] != lower.get("type", upper["type"])
    out = Table(upper.place if headers or replaces else lower.place)
    out.hides = upper.hides or (lower.values_at["type"] if replaces else lower.hides)
    for table in (upper,) if replaces else (lower, upper):
        for key, value in table.items():
            below = _as_table(out, key) if isinstance(value, Table) else None
            if below is not None:
                value = merged(below, value, headers)
            out.put(key, value, table.keys_at[key], table.values_at[key])
    return out


def _as_table(table: Table, key: str) -> Table | None:
    """Return the table of a key, the name of a part as a table with its `type`; None for other values."""
    value = table.get(key)
    if isinstance(value, str):
        return nested(["type"], value, table.keys_at[key], table.values_at[key])
    return value if isinstance(value, Table) else None


def combined(*tables: Table) -> Table:
    """Merge tables as if they were parts of one file: without replacement by `type`; later values win."""
    out, inner = Table(tables[0].place), dict[str, list[Table]]()
    for table in tables:
        for key, value in table.items():
            if isinstance(value, Table):
                inner.setdefault(key, []).append(value)
            else:
                inner.pop(key, None)
            out.put(key, value, table.keys_at[key], table.values_at[key])
    for key, several in inner.items():
        out[key] = combined(*several) if len(several) > 1 else several[0]
    return out


def without(table: Table, keys: Collection[str]) -> Table:
    """Return a copy of a table without some keys."""
    out = Table(table.place)
    out.hides = table.hides
    for key, value in table.items():
        if key not in keys:
            out.put(key, value, table.keys_at[key], table.values_at[key])
    return out


def nested(path: Sequence[str], value: Any, key_at: Place, value_at: Place) -> Table:
    """Return the nested tables of one dotted key."""
    table = Table(key_at)
    table.put(path[-1], value, key_at, value_at)
    return nested(path[:-1], table, key_at, key_at) if len(path) > 1 else table


def setting(text: str) -> Table:
    """Parse one `--set key=value` to a table; a value that is not TOML is text. Raise SpecError."""
    key, equals, value = text.partition("=")
    line = f"--set {text}"

    def here(place: Place) -> Place:
        return Place(COMMAND_LINE, 0, place.column + len("--set "), place.width, line)

    if not equals or "\n" in text:
        raise SpecError(Problem("`--set` takes key=value on one line", here(Place("", 1, 1, len(text))),
                                hint="such as `--set train.epochs=3`"))
    try:
        table: Table = _moved(_parsed(key, value), here)
    except SpecError as error:
        quoted = "a list or table is in quotes as a whole: `--set 'train.tasks=[\"sentiment\"]'`"
        whole = value.lstrip()[:1] in ("[", "{")
        raise SpecError(*(replace(p, place=p.place and here(p.place), hint=quoted if whole else p.hint)
                          for p in error.problems)) from None
    return table


def _parsed(key: str, value: str) -> Table:
    """Parse a setting; a value that is not TOML is text, so that no quotes inside the shell's are needed."""
    try:
        return parse(f"{key}={value}", COMMAND_LINE)
    except SpecError as error:
        if value.lstrip()[:1] in ("[", "{", '"', "'") or not error.problems[-1].message.startswith("not valid TOML"):
            raise
        return parse(f"{key}={json.dumps(value, ensure_ascii=False)}", COMMAND_LINE)


def _moved(value: Any, move: Callable[[Place], Place]) -> Any:
    """Copy tables and arrays, with their places mapped by `move`."""
    if isinstance(value, Table):
        table = Table(move(value.place))
        for key, item in value.items():
            table.put(key, _moved(item, move), move(value.keys_at[key]), move(value.values_at[key]))
        return table
    if isinstance(value, Array):
        array = Array()
        for item, at in zip(value, value.items_at, strict=True):
            array.put(_moved(item, move), move(at))
        return array
    return value
