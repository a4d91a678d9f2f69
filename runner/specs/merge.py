"""Tables on top of one another: what is set above hides what is set below, key by key."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from ..errors import Place, Problem, SpecError
from .toml import Array, Table, parse

COMMAND_LINE = "the command line"
"""Where the places of settings lie."""


def merged(lower: Table, upper: Table, headers: bool = True) -> Table:
    """Return a new table, `upper` on top of `lower` key by key; one of another `type` replaces what is below it.

    A table that both have stands where the upper one does, unless `headers` is false: then it has no header of its own.
    """
    replaces = "type" in upper and upper["type"] != lower.get("type", upper["type"])
    out = Table(upper.place if headers or replaces else lower.place)
    out.hides = upper.hides or (lower.values_at["type"] if replaces else lower.hides)
    for table in (upper,) if replaces else (lower, upper):
        for key, value in table.items():
            below = _spelt_out(out, key) if isinstance(value, Table) else None
            if below is not None:
                value = merged(below, value, headers)
            out.put(key, value, table.keys_at[key], table.values_at[key])
    return out


def _spelt_out(table: Table, key: str) -> Table | None:
    """Return the table below a key; the bare name of a part counts as one that holds its type."""
    value = table.get(key)
    if isinstance(value, str):
        return nested(["type"], value, table.keys_at[key], table.values_at[key])
    return value if isinstance(value, Table) else None


def combined(*tables: Table) -> Table:
    """Return a new table with all that some tables set, as if it stood in one file; of two values the later counts."""
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
    """Return a copy of a table that lacks some keys."""
    out = Table(table.place)
    out.hides = table.hides
    for key, value in table.items():
        if key not in keys:
            out.put(key, value, table.keys_at[key], table.values_at[key])
    return out


def nested(path: Sequence[str], value: Any, key_at: Place, value_at: Place) -> Table:
    """Return the tables that one dotted key means."""
    table = Table(key_at)
    table.put(path[-1], value, key_at, value_at)
    return nested(path[:-1], table, key_at, key_at) if len(path) > 1 else table


def setting(text: str) -> Table:
    """Return the table that one `--set key=value` means; a value that is no TOML counts as text. Raise SpecError."""
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
    """Parse a setting; what looks like nothing else is text, so that the shell's quotes are enough."""
    try:
        return parse(f"{key}={value}", COMMAND_LINE)
    except SpecError as error:
        if value.lstrip()[:1] in ("[", "{", '"', "'") or not error.problems[-1].message.startswith("not valid TOML"):
            raise
        return parse(f"{key}={json.dumps(value, ensure_ascii=False)}", COMMAND_LINE)


def _moved(value: Any, move: Callable[[Place], Place]) -> Any:
    """Return tables and arrays with other places."""
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
