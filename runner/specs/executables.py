"""Find the keys of foreign specs and settings that name programs to run on this machine or a cluster.

Nothing else in a bundle can run code: its specs are TOML and refer to parts by type, which only the package and the
project define; a file that a spec extends or names is a `.toml` file too, so that no key hides in another kind of file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ..errors import Place
from .merge import setting
from .spec_files import EXECUTOR
from .toml import Table, parse

ENGINES = ("extra", "partition", "account")
"""Keys of `resources` that are passed to a cluster's scheduler unchanged."""


@dataclass(frozen=True)
class Executable:
    """A key that decides which program is run."""

    key: str
    value: Any
    place: Place

    def __str__(self) -> str:
        where = f"{self.place.file}:{self.place.line}" if self.place.line else "the settings"
        return f"{where}: {self.key} = {json.dumps(self.value, ensure_ascii=False, default=str)}"


def executables(specs: Mapping[str, bytes], settings: Sequence[str] = ()) -> list[Executable]:
    """Return the executable keys of specs, given by name, and of settings. Raise SpecError for invalid TOML."""
    tables = [parse(content.decode(errors="surrogateescape"), name) for name, content in specs.items()]
    return [Executable(".".join(path), value, place) for table in (*tables, *map(setting, settings))
            for path, value, place in _leaves(table) if _is_executable(path)]


def _is_executable(path: Sequence[str]) -> bool:
    """Tell whether a key decides how workers are started, or with which options."""
    return path[0] == EXECUTOR or any(above == "resources" and key in ENGINES for above, key in pairwise(path))


def _leaves(table: Table, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any, Place]]:
    """Yield the path of each key without a table, dotted keys split, with its value and place."""
    for key, value in table.items():
        path = (*above, *key.split("."))
        inner = [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, Table)]
        for item in inner:
            yield from _leaves(item, path)
        if not inner:
            yield path, value, table.keys_at[key]
