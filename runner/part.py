"""Part: the parameters and the behaviour of one component, as a strict frozen pydantic model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """Frozen, strict parameters of one component; behaviour is added by subclasses.

    `type` is the name in a spec, `version` is raised by whoever changes what the part computes: both are in the id
    of every run that uses it. A field declared `Field(exclude=True)` is an execution setting and stays out of the id;
    one declared `Field(json_schema_extra={"later": True})` was added later and stays out while at its default.
    """

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True,
    )
    type: ClassVar[str] = ""
    version: ClassVar[int] = 1

    def canonical(self) -> dict[str, Any]:
        """Return what the id is made of: type, version and every field that decides the result."""
        values = {"type": self.type, "version": self.version} if self.type else {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            later = isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("later")
            if not field.exclude and not (later and value == field.get_default(call_default_factory=True)):
                values[name] = canonical(value)
        return values


class StrictRecord(BaseModel):
    """Frozen pydantic model of a file that mtrun writes: unknown keys and other types are errors."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class Member:
    """A node that another is made of; what a spec writes there (a path, a table, `run:ID`) is resolved to one."""

    name: str
    """What a spec calls it; empty for an inline table."""


@dataclass(frozen=True)
class Known(Member):
    """A node of which no more is said than its content id, as in an order or a manifest."""

    name: str
    id: str


def canonical(value: Any) -> Any:
    """Return a value as plain JSON: parts by their canonical form, tuples as lists, mappings by sorted keys."""
    if isinstance(value, Part):
        return value.canonical()
    if isinstance(value, Known):
        return value.id
    if isinstance(value, dict):
        return {str(key): canonical(value[key]) for key in sorted(value)}
    if isinstance(value, tuple | list):
        return [canonical(item) for item in value]
    return value


def plain_dump(value: Any) -> Any:
    """Return a part with all its fields, execution settings too, as plain JSON from which it can be built again."""
    if isinstance(value, Part):
        fields = {name: plain_dump(getattr(value, name)) for name in type(value).model_fields}
        set_ = {name: item for name, item in fields.items() if item is not None}
        return {"type": value.type, **set_} if value.type else set_
    if isinstance(value, Known):
        return value.id
    if isinstance(value, dict):
        return {key: plain_dump(item) for key, item in value.items()}
    return [plain_dump(item) for item in value] if isinstance(value, tuple) else value
