"""Part: base class of pluggable components, as a strict frozen pydantic model of their parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """Frozen, strict parameters of one component; subclasses add its behaviour.

    `type` is the name in a spec, `version` must be raised when the part computes something else: both enter the id of
    every run that uses it. A field declared `Field(exclude=True)` is an execution setting and does not enter the id;
    one declared `Field(json_schema_extra={"later": True})` was added later and does not enter it at its default.
    """

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True,
    )
    type: ClassVar[str] = ""
    version: ClassVar[int] = 1

    def canonical(self) -> dict[str, Any]:
        """Return the content of the id as JSON: type, version and every field that affects the result."""
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
    """A node that another node refers to; in a spec it is written as a path, a table or `run:ID`."""

    name: str
    """Name in a spec; empty for an inline table."""


@dataclass(frozen=True)
class Known(Member):
    """A reference to a node by its content id, as in a training job or a manifest."""

    name: str
    id: str


def canonical(value: Any) -> Any:
    """Return a value as plain JSON for its id: parts in canonical form, tuples as lists, mappings with sorted keys."""
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
    """Return a value as plain JSON from which it can be rebuilt: parts with all fields, execution settings too."""
    if isinstance(value, Part):
        fields = {name: plain_dump(getattr(value, name)) for name in type(value).model_fields}
        set_ = {name: item for name, item in fields.items() if item is not None}
        return {"type": value.type, **set_} if value.type else set_
    if isinstance(value, Known):
        return value.id
    if isinstance(value, dict):
        return {key: plain_dump(item) for key, item in value.items()}
    return [plain_dump(item) for item in value] if isinstance(value, tuple) else value
