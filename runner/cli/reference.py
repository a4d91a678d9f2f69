"""Generate the reference half of docs/specs.md from the JSON Schemas: every file, part and option."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from ..files import write_bytes
from ..part import Part
from ..parts.adapters import Adapter
from ..parts.combiners import Combiner
from ..parts.discovery import family
from ..parts.encoders import Encoder
from ..parts.ensembles import Ensemble
from ..parts.heads import Head
from ..parts.losses import Loss
from ..parts.optimizers import Optimizer
from ..parts.regularizers import Regularizer
from ..parts.schedules import Schedule
from ..parts.suites import Suite
from ..worker.executors import Executor
from .schema import Json, Schemas

PAGE = Path("docs") / "specs.md"

MARK = "<!-- Everything below is written by `mtrun schema --write`. -->"
"""Line of the page that separates the written half above from the generated one below."""

FAMILIES: tuple[type[Part], ...] = (
    Suite, Encoder, Adapter, Head, Loss, Combiner, Optimizer, Schedule, Regularizer, Ensemble, Executor,
)


def write_reference(project: Path, schemas: Schemas) -> list[Path]:
    """Write a project's schemas and, if its page has the mark, the reference; return the paths written."""
    files = schemas.files()
    if (project / PAGE).is_file() and MARK in (text := (project / PAGE).read_text(encoding="utf-8")):
        files[PAGE] = page(text, schemas).encode()
    for path, data in files.items():
        write_bytes(project / path, data)
    return [project / path for path in files]


def page(text: str, schemas: Schemas) -> str:
    """Return the page with its generated half replaced; a page without the mark is returned unchanged."""
    above, mark, _ = text.partition(MARK)
    return "\n".join([above + mark, *_lines(schemas)]) + "\n" if mark else text


def _lines(schemas: Schemas) -> Iterator[str]:
    kinds = schemas.by_kind()
    for kind in ("model", "ensemble", "soup"):
        yield from _options(f"## A {kind}'s file".replace("A e", "An e"), kinds[kind])
    for base in FAMILIES:
        yield from ["", f"## {family(base)}".title(), "", _sentence(base.__doc__ or "")]
        for part in schemas.alternatives(base, complete=True):
            yield from _options(f"### `{part['properties']['type']['const']}`", part)


def _options(title: str, table: Json) -> Iterator[str]:
    """Yield the section of a table, then the sections of its nested tables."""
    about = table["properties"].get("type", table).get("description")
    options = {key: value for key, value in table["properties"].items() if "const" not in value}
    yield from ["", title]
    yield from ["", about] if about else []
    if options:
        yield from ["", "| option | takes | default | meaning |", "|---|---|---|---|"]
    for key, value in options.items():
        default = "required" if key in table.get("required", ()) else _default(value)
        yield f"| `{key}` | {_cell(_takes(value))} | {default} | {_cell(value.get('description', ''))} |"
    for key, value in options.items():
        each = value.get("additionalProperties") or {}
        for name, inner in ((key, value), (f"{key}.NAME", each)):
            if "properties" in inner:
                yield from _options(f"#### `[{name}]`", inner)


def _takes(value: Json) -> str:
    """Describe the values of an option in words."""
    if "title" in value:
        return f"one of the [{value['title']}](#{value['title']})"
    if "anyOf" in value:
        return " or ".join(dict.fromkeys(_takes(choice) for choice in value["anyOf"]))
    if "enum" in value:
        return " or ".join(f"`{choice}`" for choice in value["enum"])
    if value["type"] in ("array", "object"):
        name = "list" if value["type"] == "array" else "table"
        inner = value.get("items") or value.get("additionalProperties")
        several = f"{len(inner)}: {_takes(inner[0])}" if isinstance(inner, list) else inner and _many(inner)
        return f"{name} of {several}" if several else name
    return f"{_WORDS[value['type']]} {_bounds(value)}".strip()


def _many(value: Json) -> str:
    """Describe the items of a list or table in words, in the plural."""
    if "anyOf" in value and "title" not in value:
        return " or ".join(map(_many, value["anyOf"]))
    plural = "s" if value.get("type") in ("object", "array") else ""
    return _takes(value).removeprefix("one of the ") + plural


_WORDS = {"string": "text", "integer": "whole number", "number": "number", "boolean": "`true` or `false`"}

_SIGNS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def _bounds(value: Json) -> str:
    return ", ".join(f"{sign} {value[key]}" for key, sign in _SIGNS.items() if key in value)


def _default(value: Json) -> str:
    return f"`{json.dumps(value['default'])}`" if "default" in value else ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _sentence(docstring: str) -> str:
    """Return the first paragraph of a docstring."""
    return _cell(docstring.strip().partition("\n\n")[0])
