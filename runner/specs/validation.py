"""Build parts from tables, reporting all problems at once, each with its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_origin

from pydantic import ValidationError

from ..errors import Place, Problem, did_you_mean, nearest
from ..part import Known, Member, Part
from ..parts.discovery import family, find, is_family, names
from ..parts.suites import Suite
from .error_messages import expected, of_form, problems_of, shown, table_label
from .toml import Array, Table

P = TypeVar("P", bound=Part)


class PartBuilder:
    """Builds parts from tables and collects all problems instead of stopping at the first.

    `member` resolves the value of a field annotated `Member`: it takes the value, its place and the name of its key,
    and returns the nodes: several for a sweep, none for a problem, which it reports itself; by default a value is a
    content id. `say` takes each problem; by default they are appended to `problems`. Where `whole` is false, tables may
    lack required keys.
    """

    def __init__(self, project: Path, member: Callable[[Any, Place, str], list[Member]] | None = None,
                 say: Callable[[Problem], None] | None = None, whole: bool = True) -> None:
        self.project = project
        self.problems: list[Problem] = []
        self._take = say or self.problems.append
        self._member = member
        self._whole = whole
        self._errors = 0
        self._root: type[Part] | None = None
        self._parts: dict[tuple[type[Part], int], tuple[Table, Part]] = {}
        self._classes: dict[tuple[type[Part], str], type[Part] | None] = {}
        self._names: dict[type[Part], list[str]] = {}

    def part(self, base: type[P], value: Any, at: Place, where: str = "", also: Sequence[str] = ()) -> P | None:
        """Build a part from its table or its name; return None for one with problems.

        `where` is the name of the table in messages, `also` lists keys that it may have besides the part's own. The
        same table gives the same part, so that the points of a sweep share their common parts.
        """
        if not where and base is not self._root:
            outer, self._root = self._root, base
            try:
                return self.part(base, value, at, where, also)
            finally:
                self._root = outer
        if (built := self._parts.get((base, id(value)))) and built[0] is value:
            return cast(P, built[1])
        if not isinstance(value, Table | str) or (isinstance(value, str) and not is_family(base)):
            hint = "" if is_family(base) else f"its keys stand under a line `[{where}]`"
            self._report(f"`{where}` must be {expected(base)}, not {shown(value)}", at, self._choices(base), hint)
            return None
        cls = self._class(base, value, at, where) if is_family(base) else base
        part = self._build(cls, value if isinstance(value, Table) else Table(at), where, also) if cls else None
        if part and isinstance(value, Table):
            self._parts[base, id(value)] = value, part  # holding the table keeps its id from being reused
        return part

    def _report(self, message: str, at: Place, notes: tuple[str, ...] = (), hint: str = "") -> None:
        self._errors += 1
        self._take(Problem(message, at, notes, hint))

    def _choices(self, base: type[Part], key: str = "type") -> tuple[str, ...]:
        """Return a note that lists the parts of a family; none for other classes."""
        return (f"`{key}` can be: {', '.join(self._known(base))}",) if is_family(base) else ()

    def _known(self, base: type[Part]) -> list[str]:
        if base not in self._names:
            self._names[base] = names(base, self.project)
        return self._names[base]

    def _class(self, base: type[P], value: Table | str, at: Place, where: str) -> type[P] | None:
        """Find the class of a table's `type`, or of a part's name."""
        name: Any = value
        if isinstance(value, Table):
            at, name = value.values_at.get("type", value.place), value.get("type")
        above, _, key = where.rpartition(".") if isinstance(value, str) else (where, "", "type")
        if name is None:
            self._errors += 1
            if self._whole:
                self._report_untyped(base, cast(Table, value), where)
        elif not isinstance(name, str):
            message = f"`type` in {table_label(where)} must be text in quotes, not {shown(name)}"
            self._report(message, at, self._choices(base))
        elif name not in self._known(base):
            hint = did_you_mean(name, self._known(base))
            self._report(f"unknown {key} `{name}` in {table_label(above)}", at, self._choices(base, key), hint)
        else:
            return cast("type[P] | None", self._find(base, name, at))
        return None

    def _report_untyped(self, base: type[Part], table: Table, where: str) -> None:
        """Report that `type` is missing, or that a key similar to it is unknown."""
        if key := nearest("type", [key for key in table if key not in base.model_fields]):
            message = f"unknown key `{key}` in `[{where}]`"
            self._report(message, table.keys_at[key], self._choices(base), did_you_mean(key, ["type"]))
        else:
            hint = f'add a line `type = "…"` under `[{where}]`'
            self._report(f"`type` is missing in `[{where}]`", table.place, self._choices(base), hint)

    def _find(self, base: type[Part], name: str, at: Place) -> type[Part] | None:
        """Return the class of a known type; report a file of the project that fails to import."""
        if (base, name) not in self._classes:
            try:
                self._classes[base, name] = find(base, name, self.project)
            except Exception as error:  # a user's code may raise anything
                self._classes[base, name] = None
                file = f"parts/{family(base)}/{name}.py"
                self._report(f"{file} cannot be used: {type(error).__name__}: {error}", at)
        self._errors += self._classes[base, name] is None
        return self._classes[base, name]

    def _build(self, cls: type[P], table: Table, where: str, also: Sequence[str]) -> P | None:
        """Build what is nested first, then let pydantic check the rest."""
        values: dict[str, Any] = {}
        broken: set[str] = set()
        for key, value in table.items():
            if key == "type" and cls.type:
                continue
            before = self._errors
            field = cls.model_fields.get(key)
            below = f"{where}.{key}" if where else key
            values[key] = self._value(field.annotation if field else Any, value, table.values_at[key], below)
            if self._errors > before:
                broken.add(key)
        try:
            part = cls.model_validate(values)
        except ValidationError as error:
            self._errors += 1
            for key, problem in problems_of(error, cls, table, where, also, self._root, self._known):
                if key not in broken and (self._whole or key in table):
                    self._take(problem)
            return None
        if broken:
            return None
        return cast(P, part.resolved(self.project)) if isinstance(part, Suite) else part

    def _value(self, annotation: Any, value: Any, at: Place, where: str) -> Any:
        """Convert a field's value: tables to parts and members, arrays to tuples."""
        annotation = of_form(annotation, value)
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
        members: list[Member] = self._member(value, at, where) if self._member else [Known("", str(value))]
        self._errors += not members
        return members

    def _only_member(self, value: Any, at: Place, where: str) -> Member | None:
        """Return the one member of a field that takes one; report a sweep of several."""
        members = self._members(value, at, where)
        if len(members) > 1:
            name = shown(value).removeprefix("the text ")
            hint = f'let dev choose one: {{ type = "best", by = "…", members = [{name}] }}'
            self._report(f"`{where}` takes one member, and this is a sweep of {len(members)} models", at, hint=hint)
        return members[0] if members else None


def plain(value: Any) -> Any:
    """Convert arrays to tuples and tables to dictionaries, as pydantic expects them."""
    if isinstance(value, Array):
        return tuple(plain(item) for item in value)
    return {key: plain(item) for key, item in value.items()} if isinstance(value, Table) else value


def as_table(value: Any, at: Place) -> Any:
    """Convert plain JSON to tables and arrays, all with one place, to build parts from it."""
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
