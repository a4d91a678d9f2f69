"""JSON Schemas of specs, suites and profiles, for completion, hover and quick checks in an editor without a network.

They are of draft 7 without `$ref`: Taplo, the engine of the usual TOML extensions, supports nothing newer, and drops
the description beside a reference. Parts are the alternatives of an `anyOf`, distinguished by the constant `type`:
Taplo offers the keys of all alternatives, but never those of `if`/`then`. No key is required in a file that a profile
or `extends` may complete; the items of an array are never completed, so their keys are. Each file must have its `kind`;
otherwise a schema accepts all that mtrun accepts. The checks of mtrun itself are stricter, with better messages.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from ..errors import Place, Problem, SpecError
from ..part import Member, Part
from ..parts.discovery import documented, family, find, is_family, names
from ..parts.ensembles import Ensemble
from ..parts.suites import Suite
from ..specs.spec import Model, Soup
from ..specs.sweep import NODES, POINTS
from ..worker.executors import Executor

Json = dict[str, Any]

FOLDER = Path("specs") / ".schema"
"""Folder of a project's schemas; the first line of a spec names its own, such as `#:schema .schema/model.json`."""

LEVELS = 1
"""Depth to which nested trees are described; deeper ones may have any keys."""

_EXTENDS = {"type": "string", "description": """
The path of a spec that this one stands on: tables are merged key by key, and this file wins. A part of another `type`
replaces the one below it as a whole.""".strip()}

_NAME = {"type": "string", "description": "What results and tables call it; left out: the name of the file."}

_ABOUT = {"type": "string", "description": "Any words; they decide nothing."}

_FILE = {"type": "string", "description": "The path of a file of kind suite, from the folder of this file."}

_STARTER = "How a build starts workers where its command line names no other; it decides no result."

_MEMBER = {"type": "string", "description": """
The path of a spec, from the folder of this file; or `run:ID`, a finished run of the registry.""".strip()}

_LIMIT = {"description": "How many points are meant at most.", "type": "integer", "minimum": 1, "maximum": NODES,
          "default": POINTS}

_POINTS = {"description": "Points with names of their own: under `[sweep.points.NAME]` stands what the point sets.",
           "type": "object", "minProperties": 1, "additionalProperties": {"type": "object"}}

_SWEEP = {"description": """
Makes one model of each point of a grid: a dotted key, such as `"optimizer.lr_scale"`, and the list of its values.
Several keys make all combinations.""".strip(), "type": "object", "properties": {"limit": _LIMIT, "points": _POINTS},
          "additionalProperties": {"anyOf": [{"type": "array", "minItems": 1}, {"type": "object"}]}}


@dataclass(frozen=True)
class Schemas:
    """JSON Schemas of one project's files, with the package's parts and the project's own."""

    project: Path | None = None

    def by_kind(self) -> dict[str, Json]:
        """Build the schema of each kind of file."""
        model = self.table(Model)["properties"]
        suites = self.alternatives(Suite)
        model["suite"] = _about(documented(Model)["suite"]) | {"title": family(Suite), "anyOf": [_FILE, *suites]}
        header = {"extends": _EXTENDS, "description": _ABOUT}
        starter = {"description": _STARTER} | self._part(Executor, False, LEVELS)
        tree = {"description": "The node at the top.", "title": family(Ensemble), "anyOf": self.alternatives(Ensemble)}
        return {
            "model": _file(_kind("model") | {"name": _NAME} | header | {"sweep": _SWEEP} | model),
            "ensemble": _file(_kind("ensemble") | {"name": _NAME} | header | {"tree": tree}),
            "soup": _file(_kind("soup") | {"name": _NAME} | header | self.table(Soup)["properties"]),
            "suite": {"anyOf": [_file(_kind("suite") | header | suite["properties"], suite) for suite in suites]},
            "profile": _file(header | model | {"executor": starter}),
        }

    def files(self) -> dict[Path, bytes]:
        """Return the bytes of each schema by its path relative to the project."""
        return {FOLDER / f"{kind}.json": (json.dumps({"$schema": _DRAFT, **schema}, indent=1) + "\n").encode()
                for kind, schema in self.by_kind().items()}

    def alternatives(self, base: type[Part], complete: bool = False, levels: int = LEVELS) -> list[Json]:
        """Return the schema of each part of a family; `complete` where no key can come from another file."""
        return [self.table(self._find(base, name), name, complete, levels) for name in names(base, self.project)]

    def _find(self, base: type[Part], name: str) -> type[Part]:
        """Return the class of a part. Raise SpecError where the project's own file of it fails to import."""
        try:
            cls = find(base, name, self.project)
        except Exception as error:  # a user's code may raise anything
            file = f"parts/{family(base)}/{name}.py"
            raise SpecError(Problem(f"cannot be used: {type(error).__name__}: {error}", Place(file))) from None
        assert cls
        return cls

    def table(self, cls: type[Part], name: str = "", complete: bool = False, levels: int = LEVELS) -> Json:
        """Return the schema of a part; `name` is its type."""
        kind = {"type": _type(name, _doc(cls))} if name else {}
        fields = {key: self._field(field, complete, levels) for key, field in documented(cls).items()}
        needed = [*kind, *(key for key, field in cls.model_fields.items() if field.is_required())]
        out = {"description": f"`{name}`: {_doc(cls)}" if name else _doc(cls), "type": "object",
               "properties": {**kind, **fields}, "additionalProperties": False}
        return out | ({"required": needed} if complete and needed else {})

    def _field(self, field: FieldInfo, complete: bool, levels: int) -> Json:
        value = self._value(field.annotation, field.metadata, complete, levels)
        default = field.get_default(call_default_factory=True)
        plain = None if field.is_required() or isinstance(default, Part) else default
        return value | _about(field) | ({} if plain is None else {"default": plain})

    def _value(self, annotation: Any, metadata: Sequence[Any], complete: bool, levels: int) -> Json:
        """Return the schema of a field's value: the same cases as in `PartBuilder`, which reads it."""
        annotation = _without_none(annotation)
        args, origin = get_args(annotation), get_origin(annotation)
        if origin is Annotated:
            return self._value(args[0], (*args[1:], *metadata), complete, levels)
        if origin in (Union, UnionType):
            return {"anyOf": [self._value(choice, (), complete, levels) for choice in args]}
        if annotation is Member:
            return {"title": "members", "anyOf": [_MEMBER, *self._nodes(complete, levels)]}
        if isinstance(annotation, type) and issubclass(annotation, Part):
            return self._part(annotation, complete, levels)
        if origin is dict:
            limits = {} if not complete else _plain(dict[str, Any], metadata)
            return {**limits, "type": "object", "additionalProperties": self._value(args[1], (), complete, levels)}
        if origin is tuple and args[-1] is ...:
            return _plain(tuple[Any, ...], metadata) | {"items": self._value(args[0], (), True, levels)}
        return _plain(annotation, metadata)

    def _part(self, base: type[Part], complete: bool, levels: int) -> Json:
        """Return the schema of a part: its table, or its bare name if no option besides `type` is required."""
        if not is_family(base):
            return self.table(base, "", complete, levels)
        tables = self.alternatives(base, complete, levels)
        bare = [table["properties"]["type"] for table in tables if len(table.get("required", ())) < 2]
        choice = {"enum": [kind["const"] for kind in bare],
                  "x-taplo": {"docs": {"enumValues": [kind["description"] for kind in bare]}}}
        return {"title": family(base), "anyOf": [choice, *tables] if bare else tables}

    def _nodes(self, complete: bool, levels: int) -> list[Json]:
        """Return the schemas of the trees that can be an inline member."""
        if levels:
            return self.alternatives(Ensemble, complete, levels - 1)
        kinds = {"enum": names(Ensemble, self.project)}
        return [{"type": "object", "properties": {"type": kinds}, "required": ["type"] if complete else []}]


_DRAFT = "http://json-schema.org/draft-07/schema#"


def _file(properties: Json, table: Json | None = None) -> Json:
    """Return the schema of a file; `table` is the schema of the part that it consists of, such as a suite."""
    kind = [key for key in properties if key == "kind"]
    return {**(table or {"type": "object"}), "properties": properties, "additionalProperties": False, "required": kind}


def _kind(kind: str) -> Json:
    return {"kind": {"const": kind, "description": "What this file describes."}}


def _type(name: str, about: str) -> Json:
    """Return the schema of a part's `type`; an empty `main` keeps Taplo from showing the texts of all parts at each."""
    return {"const": name, "description": about, "x-taplo": {"docs": {"main": "", "constValue": about}}}


def _about(field: FieldInfo) -> Json:
    return {"description": inspect.cleandoc(field.description)} if field.description else {}


def _doc(cls: type[Part]) -> str:
    return inspect.getdoc(cls) or ""


def _without_none(annotation: Any) -> Any:
    """Return X for `X | None`: TOML has no null."""
    if get_origin(annotation) in (Union, UnionType):
        return Union[tuple(each for each in get_args(annotation) if each is not type(None))]  # noqa: UP007
    return annotation


def _plain(annotation: Any, metadata: Sequence[Any]) -> Json:
    """Return pydantic's schema of a type that contains no part, converted to draft 7."""
    limited: Any = Annotated[annotation, *metadata] if metadata else annotation
    schema = TypeAdapter(limited).json_schema()
    return {"items" if key == "prefixItems" else key: value for key, value in schema.items()}
