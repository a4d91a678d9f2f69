"""Compare the inputs that decide two runs, field by field, by the keys of a spec."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import Place
from ..part import canonical, plain_dump
from .spec import Leaf
from .toml import Table

Key = tuple[str, ...]

Fields = Mapping[Key, Any]
"""Values as plain JSON by the path of their key, without unset ones."""

Entries = frozenset[tuple[Key, str]]
"""Fields as a set of paths and values as text, for fast comparison."""

ASIDE = ("suite", "resources", "track")
"""Tables of a model that are not in its id: data is compared by content, the others are execution settings."""

SUITE_TYPE = ("suite", "type")

CONTENT = "data"

WEIGHTS = "weights"
"""Keys of differences that are not fields of a spec: hashes of the suite's content and of other files."""

SHOWN = 28
"""Maximal number of characters printed of a value."""


@dataclass(frozen=True)
class RunInputs:
    """All inputs that decide the result of a run."""

    fields: Fields
    suite: Fields
    """Description of the data; irrelevant where the content is the same."""
    content: str
    """Hash of the suite's content."""
    inputs: Mapping[str, str]
    """Hash of each file read besides the data, such as pretrained weights."""
    defaults: Fields = field(default_factory=dict)
    """Fields that are left out of the id while they have these default values."""

    @classmethod
    def of_leaf(cls, leaf: Leaf, content: str, project: Path) -> RunInputs:
        """Return the inputs of a leaf; `content` is the hash of its suite's content."""
        whole = json.loads(json.dumps(plain_dump(leaf.model)))
        deciding = dict(flat(canonical(leaf.model)))
        fields = dict(_decisive(whole))
        defaults = {key: fields.pop(key) for key in list(fields) if key not in deciding}
        inputs = leaf.model.inputs(project)
        return cls(fields, dict(flat(whole["suite"], ("suite",))), content, inputs, defaults)

    @classmethod
    def of_manifest(cls, manifest: Mapping[str, Any]) -> RunInputs:
        """Return the inputs of a finished run."""
        spec, content = manifest["spec"], manifest["suite"]["sha256"]
        return cls(dict(_decisive(spec)), dict(flat(spec.get("suite", {}), ("suite",))), content,
                   manifest["inputs"])


@dataclass(frozen=True)
class Difference:
    """One field that differs; None where it is not set."""

    key: str
    old: Any
    new: Any
    place: Place | None = None
    """Place where the new value is set; None for a default."""

    def __str__(self) -> str:
        if self.key == CONTENT:
            return f"the data changed: {self.old[:12]} -> {self.new[:12]}"
        if self.key == WEIGHTS:
            changed = [name for name in sorted(self.old | self.new) if self.old.get(name) != self.new.get(name)]
            return f"the files that it reads changed: {', '.join(changed)}"
        at = f"  ({self.place})" if self.place else ""
        return f"{self.key}: {_shown(self.old)} -> {_shown(self.new)}{at}"

    def to_json(self) -> dict[str, Any]:
        """Return the difference as plain JSON; null for an unset value or a missing place."""
        at = self.place and {"file": self.place.file, "line": self.place.line, "column": self.place.column}
        return {"key": self.key, "old": self.old, "new": self.new, "place": at}


def _shown(value: Any) -> str:
    """Format a value as in a spec, cut to SHOWN characters."""
    text = "unset" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def flat(value: Any, above: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Yield every leaf value of nested tables with the path of its key; a list is one value."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from flat(item, (*above, key))
    elif value is not None:
        yield above, value


def _decisive(spec: Mapping[str, Any]) -> Iterator[tuple[Key, Any]]:
    """Yield the fields of a dumped model that are part of its id."""
    return flat({key: value for key, value in spec.items() if key not in ASIDE})


def differences(old: RunInputs, new: RunInputs, table: Table | None = None) -> list[Difference]:
    """Return all differences, sorted by key; `table` is the resolved new spec, for the places."""
    pairs = _pairs({**new.defaults, **old.fields}, {**new.defaults, **new.fields})
    result = [Difference(".".join(key), a, b, place_of(table, key)) for key, a, b in pairs]
    if old.content != new.content:
        result.append(Difference(CONTENT, old.content, new.content))
        same = old.suite.get(SUITE_TYPE) == new.suite.get(SUITE_TYPE)  # else the two have no fields in common
        result += [Difference(".".join(key), a, b, place_of(table, key))
                   for key, a, b in _pairs(old.suite, new.suite) if same or key == SUITE_TYPE]
    if old.inputs != new.inputs:
        result.append(Difference(WEIGHTS, dict(old.inputs), dict(new.inputs)))
    return result


def _pairs(old: Fields, new: Fields) -> Iterable[tuple[Key, Any, Any]]:
    """Return the keys whose values differ as JSON, with old and new value."""
    return [(key, old.get(key), new.get(key)) for key in sorted(old.keys() | new.keys())
            if _text(old.get(key)) != _text(new.get(key))]


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def entries(fields: Fields) -> Entries:
    """Convert fields to a set, for fast comparison."""
    return frozenset((key, repr(value)) for key, value in fields.items())


def place_of(table: Table | None, key: Key) -> Place | None:
    """Return the place where a resolved spec sets a key; a part given by name (`loss = "bce"`) sets its `type`."""
    place = None
    for step, name in enumerate(key):
        if not isinstance(table, Table):
            return place if key[step:] == ("type",) else None
        if name not in table:
            return None
        place, table = table.values_at[name], table[name]
    return place
