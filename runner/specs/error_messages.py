"""From what pydantic found wrong with a part to what a person should read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from ..errors import Problem, did_you_mean, near
from ..part import Member, Part
from ..parts.discovery import documented, is_family
from .toml import Array, Table
from .toml_errors import written

MOST = 200
"""How many problems of one part are told."""

PLAIN: dict[Any, tuple[str, str]] = {
    bool: ("true or false", "true or false"), int: ("a whole number", "whole numbers"), float: ("a number", "numbers"),
    str: ("text in quotes", "texts"), Member: ("the path of a spec", "specs"),
}


def required(annotation: Any) -> Any:
    """Return X for `X | None`."""
    if get_origin(annotation) in (Union, UnionType):
        return next(a for a in get_args(annotation) if a is not type(None))
    return annotation


def expected(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """Return what a field takes in a few words, such as `a whole number of at least 1`."""
    annotation = required(annotation)
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        *most, last = (f"`{choice}`" for choice in args)
        return f"{', '.join(most)} or {last}" if most else last
    if origin is tuple:
        many = args[-1] is ...
        return f"a list of {'' if many else f'{len(args)} '}{_plural(args[0])}" + _least(metadata)
    if annotation in (int, float):
        return PLAIN[annotation][0] + _range(annotation, metadata)
    if annotation in PLAIN:
        return PLAIN[annotation][0] + (", not empty" if _least(metadata) else "")
    if isinstance(annotation, type) and issubclass(annotation, Part) and is_family(annotation):
        return "a table with a `type`, or the bare name of one"
    return "a table" + _least(metadata)


def _plural(annotation: Any) -> str:
    return PLAIN[annotation][1] if annotation in PLAIN else "words" if get_origin(annotation) is Literal else "tables"


def _least(metadata: Sequence[Any]) -> str:
    least = next((m.min_length for m in metadata if hasattr(m, "min_length")), 0)
    return f" (at least {'one' if least == 1 else least})" if least else ""


def _range(number: type, metadata: Sequence[Any]) -> str:
    """Return the range of a number, such as ` from 0 to 1`."""
    bound = {key: getattr(m, key) for m in metadata for key in ("ge", "gt", "le", "lt") if hasattr(m, key)}
    if number is int and "lt" in bound:
        bound["le"] = bound.pop("lt") - 1
    if "ge" in bound and ("le" in bound or "lt" in bound):
        return f" from {bound['ge']} to {bound['le'] if 'le' in bound else 'below ' + str(bound['lt'])}"
    words = {"ge": " of at least", "gt": " above", "le": " of at most", "lt": " below"}
    return " and".join(f"{words[key]} {value}" for key, value in bound.items())


def shown(value: Any) -> str:
    """Return a value as a person wrote it, in a few words."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'the text "{value if len(value) <= 60 else value[:60] + "…"}"'
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}" if value else "an empty list"
    if isinstance(value, dict):
        return "a table" if value else "an empty table"
    return str(value)


def diagnosed(error: ValidationError, cls: type[Part], table: Table, where: str, also: Sequence[str],
              root: type[Part] | None, known: Callable[[type[Part]], list[str]]) -> Iterator[tuple[str, Problem]]:
    """Yield each problem of a part with its key. A key that is missing since it is spelt wrongly is one problem.

    `also` names keys that the table may have besides the part's; `known` names the parts of a family.
    """
    takes = sorted({*cls.model_fields, *(["type"] if cls.type else []), *also})
    title = f"`{cls.type}`" if cls.type else f"`[{where}]`" if where else "a spec"
    errors = error.errors(include_url=False)[:MOST]
    unknown = {str(e["loc"][0]) for e in errors if e["type"] == "extra_forbidden"}
    meant = {name for key in unknown for name in near(key, takes)[:1]}
    for one in errors:
        key = str(one["loc"][0]) if one["loc"] else ""
        if key in unknown:
            hint = did_you_mean(key, takes) or _belongs(key, root)
            notes = (f"{title} takes: {', '.join(takes)}",)
            yield key, Problem(f"unknown key `{key}` in {inside(where)}", table.keys_at[key], notes, hint)
        elif one["type"] == "missing" and len(one["loc"]) == 1:
            if key not in meant and "extends" not in meant:
                yield key, _missing(key, documented(cls)[key], table, where, known)
        else:
            yield key, _wrong(one, key, cls, table, where)


def inside(where: str) -> str:
    """Return a table's name as messages give it; empty stands for the whole spec."""
    return f"`[{where}]`" if where else "the spec"


def _belongs(key: str, root: type[Part] | None) -> str:
    """Return a hint that names the table of a spec that takes a key."""
    for name, field in (root.model_fields if root else {}).items():
        annotation = required(field.annotation)
        if get_origin(annotation) is dict:
            name, annotation = f"{name}.TASK", get_args(annotation)[1]
        if isinstance(annotation, type) and issubclass(annotation, Part) and key in annotation.model_fields:
            return f"`{key}` belongs in `[{name}]`"
    return ""


def _missing(key: str, field: FieldInfo, table: Table, where: str, known: Callable[[type[Part]], list[str]]) -> Problem:
    """Return the problem of a key that is not there, with what it is and where to add it."""
    annotation, about = required(field.annotation), (field.description or "").split("\n")[0]
    is_part = isinstance(annotation, type) and issubclass(annotation, Part)
    what = f"can be: {', '.join(known(annotation))}" if is_part and is_family(annotation) else (
        f"is {expected(annotation, field.metadata)}")
    if get_origin(annotation) is dict or (is_part and not where):
        inner = f"[{where}.{key}]" if where else f"[{key}]"
        hint = f"add a table `{inner}`, here or in a file that this one extends"
    else:
        value = '"…"' if is_part or annotation is str else "…"
        hint = f"add a line `{key} = {value}` " + (f"under `[{where}]`" if where else "at the top")
    notes = [f"`{key}` {what}", about]
    if table.hides:
        notes.append(f"its `type` replaces that at {table.hides}, with all keys beside it")
    return Problem(f"`{key}` is missing in {inside(where)}", table.place, tuple(filter(None, notes)), hint)


def _wrong(error: ErrorDetails, key: str, cls: type[Part], table: Table, where: str) -> Problem:
    """Return the problem of a value that is of the wrong kind or out of its range."""
    if not key:
        return _unfit(error, table, where)
    field, at, value = cls.model_fields[key], table.values_at.get(key, table.place), table.get(key)
    annotation, metadata = required(field.annotation), field.metadata
    what = f"`{key}` in {inside(where)}"
    if isinstance(value, Array) and len(error["loc"]) > 1 and error["loc"][1] in range(len(value)):
        number = int(error["loc"][1])
        value, at = value[number], value.items_at[number]
        annotation, metadata, what = get_args(annotation)[0], [], f"each item of {what}"
    for entry in error["loc"][1:]:
        if get_origin(annotation) is dict and isinstance(value, Table) and entry in value:
            where, entry = f"{where}.{key}" if where else key, str(entry)
            annotation, metadata = _annotated(get_args(annotation)[1])
            key, at, value, what = entry, value.values_at[entry], value[entry], f"`{entry}` in {inside(where)}"
    if error["type"] == "value_error":
        return Problem(f"{what}: {_said(error)}", at)
    return Problem(f"{what} must be {expected(annotation, metadata)}, not {shown(value)}", at,
                   hint=_mended(key, value, annotation))


def _annotated(annotation: Any) -> tuple[Any, list[Any]]:
    """Return an annotation without what `Annotated` adds to it, and that."""
    if get_origin(annotation) is not Annotated:
        return required(annotation), []
    inner, *fields = get_args(annotation)
    return inner, [one for field in fields for one in getattr(field, "metadata", [field])]


def _unfit(error: ErrorDetails, table: Table, where: str) -> Problem:
    """Return the problem of values that do not go together, placed at one that it speaks of, best one set on top."""
    words = re.findall(r"[\w.-]+", _said(error))
    spoken = [key for key, value in table.items() if key in words or (isinstance(value, str) and value in words)]
    spoken.sort(key=lambda key: table.values_at[key].file != table.place.file)
    notes = tuple(f"`{key}` is set at {table.values_at[key]}" for key in spoken[1:])
    return Problem(f"{inside(where)}: {_said(error)}", table.values_at[spoken[0]] if spoken else table.place, notes)


def _said(error: ErrorDetails) -> str:
    return error["msg"].removeprefix("Value error, ")


def _mended(key: str, value: Any, annotation: Any) -> str:
    """Return a hint on how a value was probably meant."""
    kind, args = get_origin(annotation), get_args(annotation)
    if kind is Literal and isinstance(value, str):
        return did_you_mean(value, map(str, args))
    if isinstance(value, str) and _is_one(annotation, value):
        return f"write it without quotes: `{key} = {value.strip().lower()}`"
    if annotation is int and isinstance(value, float) and value.is_integer():
        return f"write it without the point: `{key} = {int(value)}`"
    if kind is tuple and isinstance(value, str | int | float):
        return f"write a list: `{key} = [{written(value)}]`"
    if isinstance(value, Array) and annotation in (bool, int, float, str):
        return f'to try several values, list them under `[sweep]`: `"…{key}" = {written(value)}`' if value else ""
    return 'write it in quotes: "…"' if annotation is str and not isinstance(value, list | dict) else ""


def _is_one(annotation: Any, text: str) -> bool:
    """Tell whether a text spells a number or truth value of a kind."""
    forms = {bool: r"(?i:true|false)", int: r"[+-]?\d+", float: r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?"}
    return annotation in forms and bool(re.fullmatch(forms[annotation], text.strip()))
