"""Convert pydantic's validation errors of a part to problems with plain messages, places and hints."""

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
"""Maximal number of problems reported for one part."""

PLAIN: dict[Any, tuple[str, str]] = {
    bool: ("true or false", "true or false"), int: ("a whole number", "whole numbers"), float: ("a number", "numbers"),
    str: ("text in quotes", "texts"), Member: ("the path of a spec", "specs"),
}


def non_optional(annotation: Any) -> Any:
    """Return X for `X | None`."""
    return _choices(annotation)[0]


def of_form(annotation: Any, value: Any) -> Any:
    """Return the type of a union that has the form of a value, without constraints: that of a table or of a list."""
    choices = [_annotated(choice)[0] for choice in _choices(annotation)]
    fitting = [choice for choice in choices if (isinstance(value, Array) and get_origin(choice) is tuple)
               or (isinstance(value, Table) and isinstance(choice, type) and issubclass(choice, Part))]
    return (fitting or choices)[0]


def expected(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """Describe the values of a field in a few words, such as `a whole number of at least 1`."""
    if len(choices := _choices(annotation)) > 1:
        *most, last = (expected(*_annotated(choice)) for choice in choices)
        return f"{', '.join(most)} or {last}"
    annotation = non_optional(annotation)
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        *most, last = (f"`{choice}`" for choice in args)
        return f"{', '.join(most)} or {last}" if most else last
    if origin is tuple:
        many = args[-1] is ...
        return f"a list of {'' if many else f'{len(args)} '}{_plural(args[0])}" + _min_length(metadata)
    if annotation in (int, float):
        return PLAIN[annotation][0] + _range(annotation, metadata)
    if annotation in PLAIN:
        return PLAIN[annotation][0] + (", not empty" if _min_length(metadata) else "")
    if isinstance(annotation, type) and issubclass(annotation, Part) and is_family(annotation):
        return "a table with a `type`, or the bare name of one"
    return "a table" + _min_length(metadata)


def _choices(annotation: Any) -> list[Any]:
    """Return the types of a union without None; of anything else, itself."""
    is_union = get_origin(annotation) in (Union, UnionType)
    return [each for each in get_args(annotation) if each is not type(None)] if is_union else [annotation]


def _plural(annotation: Any) -> str:
    if len(choices := _choices(annotation)) > 1:
        return " or ".join(map(_plural, choices))
    annotation, _ = _annotated(annotation)
    if get_origin(annotation) is tuple:
        return f"lists of {_plural(get_args(annotation)[0])}"
    return PLAIN[annotation][1] if annotation in PLAIN else "words" if get_origin(annotation) is Literal else "tables"


def _min_length(metadata: Sequence[Any]) -> str:
    least = next((m.min_length for m in metadata if hasattr(m, "min_length")), 0)
    return f" (at least {'one' if least == 1 else least})" if least else ""


def _range(number: type, metadata: Sequence[Any]) -> str:
    """Describe the range of a number, such as ` from 0 to 1`."""
    bound = {key: getattr(m, key) for m in metadata for key in ("ge", "gt", "le", "lt") if hasattr(m, key)}
    if number is int and "lt" in bound:
        bound["le"] = bound.pop("lt") - 1
    if "ge" in bound and ("le" in bound or "lt" in bound):
        return f" from {bound['ge']} to {bound['le'] if 'le' in bound else 'below ' + str(bound['lt'])}"
    words = {"ge": " of at least", "gt": " above", "le": " of at most", "lt": " below"}
    return " and".join(f"{words[key]} {value}" for key, value in bound.items())


def shown(value: Any) -> str:
    """Describe a given value in a few words, such as `a list of 3`."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'the text "{value if len(value) <= 60 else value[:60] + "…"}"'
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}" if value else "an empty list"
    if isinstance(value, dict):
        return "a table" if value else "an empty table"
    return str(value)


def problems_of(error: ValidationError, cls: type[Part], table: Table, where: str, also: Sequence[str],
              root: type[Part] | None, known: Callable[[type[Part]], list[str]]) -> Iterator[tuple[str, Problem]]:
    """Yield each problem of a part with its key; a misspelt required key is one problem, not two.

    `also` names keys that the table may have besides the part's; `known` names the parts of a family.
    """
    takes = sorted({*cls.model_fields, *(["type"] if cls.type else []), *also})
    title = f"`{cls.type}`" if cls.type else f"`[{where}]`" if where else "a spec"
    errors = error.errors(include_url=False)[:MOST]
    unknown = {str(e["loc"][0]) for e in errors if e["type"] == "extra_forbidden"}
    intended = {name for key in unknown for name in near(key, takes)[:1]}
    for detail in errors:
        key = str(detail["loc"][0]) if detail["loc"] else ""
        if key in unknown:
            hint = did_you_mean(key, takes) or _belonging_hint(key, root)
            notes = (f"{title} takes: {', '.join(takes)}",)
            yield key, Problem(f"unknown key `{key}` in {table_label(where)}", table.keys_at[key], notes, hint)
        elif detail["type"] == "missing" and len(detail["loc"]) == 1:
            if key not in intended and "extends" not in intended:
                yield key, _missing(key, documented(cls)[key], table, where, known)
        else:
            yield key, _invalid(detail, key, cls, table, where)


def table_label(where: str) -> str:
    """Format the name of a table for messages; the empty name is the whole spec."""
    return f"`[{where}]`" if where else "the spec"


def _belonging_hint(key: str, root: type[Part] | None) -> str:
    """Return a hint with the table that a misplaced key belongs in, or an empty string."""
    for name, field in (root.model_fields if root else {}).items():
        annotation = non_optional(field.annotation)
        if get_origin(annotation) is dict:
            name, annotation = f"{name}.TASK", get_args(annotation)[1]
        if isinstance(annotation, type) and issubclass(annotation, Part) and key in annotation.model_fields:
            return f"`{key}` belongs in `[{name}]`"
    return ""


def _missing(key: str, field: FieldInfo, table: Table, where: str, known: Callable[[type[Part]], list[str]]) -> Problem:
    """Return the problem of a missing key, with its meaning and where to add it."""
    annotation, about = non_optional(field.annotation), (field.description or "").split("\n")[0]
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
    return Problem(f"`{key}` is missing in {table_label(where)}", table.place, tuple(filter(None, notes)), hint)


def _invalid(error: ErrorDetails, key: str, cls: type[Part], table: Table, where: str) -> Problem:
    """Return the problem of a value of the wrong type or out of range."""
    if not key:
        return _inconsistent(error, table, where)
    field, at, value = cls.model_fields[key], table.values_at.get(key, table.place), table.get(key)
    annotation, metadata = non_optional(field.annotation), field.metadata
    what = f"`{key}` in {table_label(where)}"
    if len(_choices(field.annotation)) > 1:
        return Problem(f"{what} must be {expected(field.annotation)}, not {shown(value)}", at)
    if isinstance(value, Array) and len(error["loc"]) > 1 and error["loc"][1] in range(len(value)):
        number = int(error["loc"][1])
        value, at = value[number], value.items_at[number]
        annotation, metadata, what = get_args(annotation)[0], [], f"each item of {what}"
    for entry in error["loc"][1:]:
        if get_origin(annotation) is dict and isinstance(value, Table) and entry in value:
            where, entry = f"{where}.{key}" if where else key, str(entry)
            annotation, metadata = _annotated(get_args(annotation)[1])
            key, at, value, what = entry, value.values_at[entry], value[entry], f"`{entry}` in {table_label(where)}"
    if error["type"] == "value_error":
        return Problem(f"{what}: {_message(error)}", at)
    return Problem(f"{what} must be {expected(annotation, metadata)}, not {shown(value)}", at,
                   hint=_fix_hint(key, value, annotation))


def _annotated(annotation: Any) -> tuple[Any, list[Any]]:
    """Split `Annotated[X, ...]` into X and its constraints."""
    if get_origin(annotation) is not Annotated:
        return non_optional(annotation), []
    inner, *fields = get_args(annotation)
    return inner, [each for field in fields for each in getattr(field, "metadata", [field])]


def _inconsistent(error: ErrorDetails, table: Table, where: str) -> Problem:
    """Return the problem of an inconsistent combination of values.

    Its place is that of a value named in the message, preferably one set in the table's own file.
    """
    words = re.findall(r"[\w.-]+", _message(error))
    mentioned = [key for key, value in table.items() if key in words or (isinstance(value, str) and value in words)]
    mentioned.sort(key=lambda key: table.values_at[key].file != table.place.file)
    notes = tuple(f"`{key}` is set at {table.values_at[key]}" for key in mentioned[1:])
    at = table.values_at[mentioned[0]] if mentioned else table.place
    return Problem(f"{table_label(where)}: {_message(error)}", at, notes)


def _message(error: ErrorDetails) -> str:
    return error["msg"].removeprefix("Value error, ")


def _fix_hint(key: str, value: Any, annotation: Any) -> str:
    """Return a hint with the probable intended value, or an empty string."""
    kind, args = get_origin(annotation), get_args(annotation)
    if kind is Literal and isinstance(value, str):
        return did_you_mean(value, map(str, args))
    if isinstance(value, str) and _is_literal(annotation, value):
        return f"write it without quotes: `{key} = {value.strip().lower()}`"
    if annotation is int and isinstance(value, float) and value.is_integer():
        return f"write it without the point: `{key} = {int(value)}`"
    if kind is tuple and isinstance(value, str | int | float):
        return f"write a list: `{key} = [{written(value)}]`"
    if isinstance(value, Array) and annotation in (bool, int, float, str):
        return f'to try several values, list them under `[sweep]`: `"…{key}" = {written(value)}`' if value else ""
    return 'write it in quotes: "…"' if annotation is str and not isinstance(value, list | dict) else ""


def _is_literal(annotation: Any, text: str) -> bool:
    """Tell whether a text is the literal of a number or truth value of the annotated type."""
    forms = {bool: r"(?i:true|false)", int: r"[+-]?\d+", float: r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?"}
    return annotation in forms and bool(re.fullmatch(forms[annotation], text.strip()))
