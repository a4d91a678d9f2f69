"""From tables to parts: every problem found at once, each with its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from .errors import Place, Problem, did_you_mean
from .parts import Member, Part, find, is_family, names
from .toml import Array, Table

P = TypeVar("P", bound=Part)


class Assembly:
    """Turns tables into parts and collects every problem instead of stopping at the first.

    `member` resolves what stands where a field is annotated `Member`: it takes the value and its place and returns
    the nodes that it means: several for a sweep, none where it is wrong, which it has said itself.
    """

    def __init__(self, project: Path, member: Callable[[Any, Place], list[Member]] | None = None) -> None:
        self.project = project
        self.problems: list[Problem] = []
        self._unresolved = 0
        self._member = member

    def part(self, base: type[P], value: Any, at: Place, where: str = "") -> P | None:
        """Return the part that a table, or a bare type name, describes; None where it is wrong."""
        if not isinstance(value, Table | str) or (isinstance(value, str) and not is_family(base)):
            self._say(f"`{where}` must be a table", at)
            return None
        cls = self._class(base, value, at, where) if is_family(base) else base
        return self._build(cls, value if isinstance(value, Table) else Table(at), where) if cls else None

    def _say(self, message: str, at: Place, notes: tuple[str, ...] = (), hint: str = "") -> None:
        self.problems.append(Problem(message, at, notes, hint))

    def _class(self, base: type[P], value: Table | str, at: Place, where: str) -> type[P] | None:
        """Find the class that a table's `type` names."""
        if isinstance(value, Table):
            at, name = value.values_at.get("type", value.place), value.get("type")
        else:
            name = value
        known = names(base, self.project)
        notes = (f"`{where}` can be: {', '.join(known)}",)
        if name is None:
            self._say(f"`type` is missing in `[{where}]`", at, notes)
        elif not isinstance(name, str) or name not in known:
            self._say(f"unknown type `{name}` in `[{where}]`", at, notes, did_you_mean(str(name), known))
        else:
            return find(base, name, self.project)
        return None

    def _build(self, cls: type[P], table: Table, where: str) -> P | None:
        """Build what is nested first, then let pydantic check the rest."""
        values: dict[str, Any] = {}
        broken: set[str] = set()
        for key, value in table.items():
            if key == "type" and cls.type:
                continue
            before = len(self.problems) + self._unresolved
            field = cls.model_fields.get(key)
            inside = f"{where}.{key}" if where else key
            values[key] = self._value(field.annotation if field else Any, value, table.values_at[key], inside)
            if len(self.problems) + self._unresolved > before:
                broken.add(key)
        try:
            made = cls.model_validate(values)
        except ValidationError as error:
            wrong = [e for e in error.errors(include_url=False) if not broken.intersection(e["loc"][:1])]
            self.problems += [_explained(one, cls, table, where) for one in wrong]
            return None
        return None if broken else made

    def _value(self, annotation: Any, value: Any, at: Place, where: str) -> Any:
        """Return a field's value with parts and members in place of tables, and tuples in place of arrays."""
        annotation = _required(annotation)
        if isinstance(value, Table) and get_origin(annotation) is dict:
            kind = get_args(annotation)[1]
            return {k: self._value(kind, v, value.values_at[k], f"{where}.{k}") for k, v in value.items()}
        if isinstance(value, Array) and get_origin(annotation) is tuple:
            kind = get_args(annotation)[0]
            pairs = zip(value, value.items_at, strict=True)
            if kind is Member:
                return tuple(node for item, place in pairs for node in self._members(item, place))
            return tuple(self._value(kind, item, place, where) for item, place in pairs)
        if annotation is Member:
            return next(iter(self._members(value, at)), None)
        if isinstance(annotation, type) and issubclass(annotation, Part):
            return self.part(annotation, value, at, where)
        return plain(value)

    def _members(self, value: Any, at: Place) -> list[Member]:
        found = self._member(value, at) if self._member else []
        self._unresolved += not found
        return found


def plain(value: Any) -> Any:
    """Return a value as pydantic takes it: arrays as tuples, tables as they are."""
    if isinstance(value, Array):
        return tuple(plain(item) for item in value)
    return {key: plain(item) for key, item in value.items()} if isinstance(value, Table) else value


def tabled(value: Any, at: Place) -> Any:
    """Return plain JSON as tables and arrays, all at one place, so that parts can be assembled from it."""
    if isinstance(value, dict):
        table = Table(at)
        for key, item in value.items():
            table.put(key, tabled(item, at), at, at)
        return table
    if isinstance(value, list):
        array = Array()
        for item in value:
            array.put(tabled(item, at), at)
        return array
    return value


def _required(annotation: Any) -> Any:
    """Return X for `X | None`."""
    if get_origin(annotation) in (Union, UnionType):
        return next(a for a in get_args(annotation) if a is not type(None))
    return annotation


def _explained(error: ErrorDetails, cls: type[Part], table: Table, where: str) -> Problem:
    """Turn one of pydantic's errors into ours."""
    key = str(error["loc"][0]) if error["loc"] else ""
    takes = sorted([*cls.model_fields, *(["type"] if cls.type else [])])
    notes = (f"`{cls.type or where or 'a spec'}` takes: {', '.join(takes)}",)
    inside = f"`[{where}]`" if where else "the spec"
    if error["type"] == "extra_forbidden":
        at = table.keys_at.get(key, table.place)
        return Problem(f"unknown key `{key}` in {inside}", at, notes, did_you_mean(key, takes))
    if error["type"] == "missing":
        return Problem(f"`{key}` is missing in {inside}", table.place, notes)
    at = table.values_at.get(key, table.place)
    if isinstance(item := table.get(key), Array) and len(error["loc"]) > 1 and isinstance(error["loc"][1], int):
        at = item.items_at[error["loc"][1]] if error["loc"][1] < len(item) else at
    expected = error["msg"].replace("Input should be", "expected").replace("Value error, ", "")
    given = "" if isinstance(error["input"], dict | list | tuple) else f", got `{error['input']}`"
    return Problem(f"`{key}` in {inside}: {expected}{given}", at, hint=_spelling(error))


def _spelling(error: ErrorDetails) -> str:
    """Return a hint for a misspelt choice."""
    if error["type"] != "literal_error":
        return ""
    choices = error.get("ctx", {}).get("expected", "").replace(" or ", ", ").split(", ")
    return did_you_mean(str(error["input"]), [c.strip("'") for c in choices])
