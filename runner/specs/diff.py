"""Differences between what decides two runs, field by field, in the keys of a spec."""

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
"""Values, plain JSON, by the path of their key; what is not set is not there."""

Entries = frozenset[tuple[Key, str]]
"""The same in a form that can be compared quickly: the values as text."""

ASIDE = ("suite", "resources", "track")
"""Tables of a model that are not in its id: data are compared by content, the others are execution settings."""

SUITE_TYPE = ("suite", "type")

CONTENT = "data"

WEIGHTS = "weights"
"""Keys of two differences that are no field of a spec: hashes of the suite's content and of other files."""

SHOWN = 28
"""Characters of a value that are printed."""


@dataclass(frozen=True)
class RunInputs:
    """What decides a run."""

    fields: Fields
    suite: Fields
    """How the data are described; decides nothing where the content is the same."""
    content: str
    """Hash of the suite's content."""
    inputs: Mapping[str, str]
    """Hash of each file that it reads besides the data, such as pretrained weights."""
    defaults: Fields = field(default_factory=dict)
    """Fields that are left out of the id while at these values."""

    @classmethod
    def of_leaf(cls, leaf: Leaf, content: str, project: Path) -> RunInputs:
        """Return the recipe of a leaf whose suite has that content."""
        whole = json.loads(json.dumps(plain_dump(leaf.model)))
        deciding = dict(flat(canonical(leaf.model)))
        fields = dict(_decisive(whole))
        defaults = {key: fields.pop(key) for key in list(fields) if key not in deciding}
        inputs = leaf.model.inputs(project)
        return cls(fields, dict(flat(whole["suite"], ("suite",))), content, inputs, defaults)

    @classmethod
    def of_manifest(cls, manifest: Mapping[str, Any]) -> RunInputs:
        """Return the recipe of a finished run."""
        spec, content = manifest["spec"], manifest["suite"]["sha256"]
        return cls(dict(_decisive(spec)), dict(flat(spec["suite"], ("suite",))), content, manifest["inputs"])


@dataclass(frozen=True)
class Difference:
    """One field that differs; None where it is not set."""

    key: str
    old: Any
    new: Any
    place: Place | None = None
    """Where the new value is set; None where it is a default."""

    def __str__(self) -> str:
        if self.key == CONTENT:
            return f"the data changed: {self.old[:12]} -> {self.new[:12]}"
        if self.key == WEIGHTS:
            changed = [name for name in sorted(self.old | self.new) if self.old.get(name) != self.new.get(name)]
            return f"the files that it reads changed: {', '.join(changed)}"
        at = f"  ({self.place})" if self.place else ""
        return f"{self.key}: {_shown(self.old)} -> {_shown(self.new)}{at}"

    def to_json(self) -> dict[str, Any]:
        """Return the difference as plain JSON; null stands for what is not set, or set nowhere."""
        at = self.place and {"file": self.place.file, "line": self.place.line, "column": self.place.column}
        return {"key": self.key, "old": self.old, "new": self.new, "place": at}


def _shown(value: Any) -> str:
    """Return a value as a spec would say it, cut where it is long."""
    text = "unset" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def flat(value: Any, above: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Yield every value inside nested tables with the path of its key; a list is one value."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from flat(item, (*above, key))
    elif value is not None:
        yield above, value


def _decisive(spec: Mapping[str, Any]) -> Iterator[tuple[Key, Any]]:
    """Yield the fields of a dumped model that stand in its id."""
    return flat({key: value for key, value in spec.items() if key not in ASIDE})


def differences(old: RunInputs, new: RunInputs, table: Table | None = None) -> list[Difference]:
    """Return every field that differs, by key; `table` is the new one's resolved spec, which knows the places."""
    pairs = _pairs({**new.defaults, **old.fields}, {**new.defaults, **new.fields})
    differing = [Difference(".".join(key), a, b, place_of(table, key)) for key, a, b in pairs]
    if old.content != new.content:
        differing.append(Difference(CONTENT, old.content, new.content))
        same = old.suite.get(SUITE_TYPE) == new.suite.get(SUITE_TYPE)  # else no field of one is a field of the other
        differing += [Difference(".".join(key), a, b, place_of(table, key))
                  for key, a, b in _pairs(old.suite, new.suite) if same or key == SUITE_TYPE]
    if old.inputs != new.inputs:
        differing.append(Difference(WEIGHTS, dict(old.inputs), dict(new.inputs)))
    return differing


def _pairs(old: Fields, new: Fields) -> Iterable[tuple[Key, Any, Any]]:
    """Return the keys whose values differ as JSON, with both values."""
    return [(key, old.get(key), new.get(key)) for key in sorted(old.keys() | new.keys())
            if _text(old.get(key)) != _text(new.get(key))]


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def entries(fields: Fields) -> Entries:
    """Return fields in a form of which those that differ are quickly found."""
    return frozenset((key, repr(value)) for key, value in fields.items())


def place_of(table: Table | None, key: Key) -> Place | None:
    """Return where a resolved spec sets a key; a part that is a bare name (`loss = "bce"`) sets its `type`."""
    place = None
    for step, name in enumerate(key):
        if not isinstance(table, Table):
            return place if key[step:] == ("type",) else None
        if name not in table:
            return None
        place, table = table.values_at[name], table[name]
    return place
