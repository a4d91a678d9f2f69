"""From tables to parts: every problem found at once, each with its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_origin

from pydantic import ValidationError

from ..errors import Place, Problem, did_you_mean, nearest
from ..part import Known, Member, Part
from ..parts.discovery import family, find, is_family, names
from .error_messages import diagnosed, expected, inside, required, shown
from .toml import Array, Table

P = TypeVar("P", bound=Part)


class PartBuilder:
    """Turns tables into parts and collects every problem instead of stopping at the first.

    `member` resolves what stands where a field is annotated `Member`: it takes the value, its place and the table
    that it stands in, and returns the nodes that it means: several for a sweep, none where it is wrong, which it has
    said itself; without it a text is a content id. `say` takes each problem; without it they are kept in `problems`.
    What is not `whole` may lack keys.
    """

    def __init__(self, project: Path, member: Callable[[Any, Place, str], list[Member]] | None = None,
                 say: Callable[[Problem], None] | None = None, whole: bool = True) -> None:
        self.project = project
        self.problems: list[Problem] = []
        self._take = say or self.problems.append
        self._member = member
        self._whole = whole
        self._wrong = 0
        self._root: type[Part] | None = None
        self._made: dict[tuple[type[Part], int], tuple[Table, Part]] = {}
        self._found: dict[tuple[type[Part], str], type[Part] | None] = {}
        self._names: dict[type[Part], list[str]] = {}

    def part(self, base: type[P], value: Any, at: Place, where: str = "", also: Sequence[str] = ()) -> P | None:
        """Return the part that a table, or a bare type name, describes; None where it is wrong.

        `where` names the table in messages, `also` the keys that it may have besides the part's own. The same table
        gives the same part, so that the points of a sweep share what they have in common.
        """
        if not where and base is not self._root:
            outer, self._root = self._root, base
            try:
                return self.part(base, value, at, where, also)
            finally:
                self._root = outer
        if (made := self._made.get((base, id(value)))) and made[0] is value:
            return cast(P, made[1])
        if not isinstance(value, Table | str) or (isinstance(value, str) and not is_family(base)):
            hint = "" if is_family(base) else f"its keys stand under a line `[{where}]`"
            self._say(f"`{where}` must be {expected(base)}, not {shown(value)}", at, self._choices(base), hint)
            return None
        cls = self._class(base, value, at, where) if is_family(base) else base
        part = self._build(cls, value if isinstance(value, Table) else Table(at), where, also) if cls else None
        if part and isinstance(value, Table):
            self._made[base, id(value)] = value, part  # holding the table keeps its id from being used again
        return part

    def _say(self, message: str, at: Place, notes: tuple[str, ...] = (), hint: str = "") -> None:
        self._wrong += 1
        self._take(Problem(message, at, notes, hint))

    def _choices(self, base: type[Part], key: str = "type") -> tuple[str, ...]:
        """Return the note that lists the parts of a family."""
        return (f"`{key}` can be: {', '.join(self._known(base))}",) if is_family(base) else ()

    def _known(self, base: type[Part]) -> list[str]:
        if base not in self._names:
            self._names[base] = names(base, self.project)
        return self._names[base]

    def _class(self, base: type[P], value: Table | str, at: Place, where: str) -> type[P] | None:
        """Find the class that a table's `type` names."""
        name: Any = value
        if isinstance(value, Table):
            at, name = value.values_at.get("type", value.place), value.get("type")
        above, _, key = where.rpartition(".") if isinstance(value, str) else (where, "", "type")
        if name is None:
            self._wrong += 1
            if self._whole:
                self._say_untyped(base, cast(Table, value), where)
        elif not isinstance(name, str):
            self._say(f"`type` in {inside(where)} must be text in quotes, not {shown(name)}", at, self._choices(base))
        elif name not in self._known(base):
            hint = did_you_mean(name, self._known(base))
            self._say(f"unknown {key} `{name}` in {inside(above)}", at, self._choices(base, key), hint)
        else:
            return cast("type[P] | None", self._find(base, name, at))
        return None

    def _say_untyped(self, base: type[Part], table: Table, where: str) -> None:
        """Say that `type` is missing or, where a key is spelt much like it, that this one is unknown."""
        if key := nearest("type", [key for key in table if key not in base.model_fields]):
            message = f"unknown key `{key}` in `[{where}]`"
            self._say(message, table.keys_at[key], self._choices(base), did_you_mean(key, ["type"]))
        else:
            hint = f'add a line `type = "…"` under `[{where}]`'
            self._say(f"`type` is missing in `[{where}]`", table.place, self._choices(base), hint)

    def _find(self, base: type[Part], name: str, at: Place) -> type[Part] | None:
        """Return the class of a type that there is; say it where a file of the project's own cannot be imported."""
        if (base, name) not in self._found:
            try:
                self._found[base, name] = find(base, name, self.project)
            except Exception as error:  # whatever a person's own code may raise
                self._found[base, name] = None
                file = f"parts/{family(base)}/{name}.py"
                self._say(f"{file} cannot be used: {type(error).__name__}: {error}", at)
        self._wrong += self._found[base, name] is None
        return self._found[base, name]

    def _build(self, cls: type[P], table: Table, where: str, also: Sequence[str]) -> P | None:
        """Build what is nested first, then let pydantic check the rest."""
        values: dict[str, Any] = {}
        broken: set[str] = set()
        for key, value in table.items():
            if key == "type" and cls.type:
                continue
            before = self._wrong
            field = cls.model_fields.get(key)
            below = f"{where}.{key}" if where else key
            values[key] = self._value(field.annotation if field else Any, value, table.values_at[key], below)
            if self._wrong > before:
                broken.add(key)
        try:
            part = cls.model_validate(values)
        except ValidationError as error:
            self._wrong += 1
            for key, problem in diagnosed(error, cls, table, where, also, self._root, self._known):
                if key not in broken and (self._whole or key in table):
                    self._take(problem)
            return None
        return None if broken else part

    def _value(self, annotation: Any, value: Any, at: Place, where: str) -> Any:
        """Return a field's value with parts and members in place of tables, and tuples in place of arrays."""
        annotation = required(annotation)
        if isinstance(value, Table) and get_origin(annotation) is dict:
            kind = get_args(annotation)[1]
            return {k: self._value(kind, v, value.values_at[k], f"{where}.{k}") for k, v in value.items()}
        if isinstance(value, Array) and get_origin(annotation) is tuple:
            kind = get_args(annotation)[0]
            pairs = zip(value, value.items_at, strict=True)
            if kind is Member:
                return tuple(node for item, place in pairs for node in self._members(item, place, where))
            return tuple(self._value(kind, item, place, where) for item, place in pairs)
        if annotation is Member:
            return self._only_member(value, at, where)
        if isinstance(annotation, type) and issubclass(annotation, Part):
            return self.part(annotation, value, at, where)
        return plain(value)

    def _members(self, value: Any, at: Place, where: str) -> list[Member]:
        found: list[Member] = self._member(value, at, where) if self._member else [Known("", str(value))]
        self._wrong += not found
        return found

    def _only_member(self, value: Any, at: Place, where: str) -> Member | None:
        """Return the member where there is room for one."""
        members = self._members(value, at, where)
        if len(members) > 1:
            name = shown(value).removeprefix("the text ")
            hint = f'let dev choose one: {{ type = "best", by = "…", members = [{name}] }}'
            self._say(f"`{where}` takes one member, and this is a sweep of {len(members)} models", at, hint=hint)
        return members[0] if members else None


def plain(value: Any) -> Any:
    """Return a value as pydantic takes it: arrays as tuples, tables as they are."""
    if isinstance(value, Array):
        return tuple(plain(item) for item in value)
    return {key: plain(item) for key, item in value.items()} if isinstance(value, Table) else value


def as_table(value: Any, at: Place) -> Any:
    """Return plain JSON as tables and arrays, all at one place, so that parts can be assembled from it."""
    if isinstance(value, dict):
        table = Table(at)
        for key, item in value.items():
            table.put(key, as_table(item, at), at, at)
        return table
    if isinstance(value, list):
        array = Array()
        for item in value:
            array.put(as_table(item, at), at)
        return array
    return value
