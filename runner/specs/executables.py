"""Executables: what somebody else's specs and settings would have this machine, or a cluster, run.

Nothing else in a bundle can: its specs are TOML, and name parts by their type, which only the package and the project
have; whatever stands under a spec is a `.toml` file too, so that none of it hides in another kind of file.
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
"""Keys of `resources` that are handed to a cluster's engine as they are."""


@dataclass(frozen=True)
class Executable:
    """A key that says what is run."""

    key: str
    value: Any
    place: Place

    def __str__(self) -> str:
        where = f"{self.place.file}:{self.place.line}" if self.place.line else "the settings"
        return f"{where}: {self.key} = {json.dumps(self.value, ensure_ascii=False, default=str)}"


def executables(specs: Mapping[str, bytes], settings: Sequence[str] = ()) -> list[Executable]:
    """Return what specs, by their names, and settings would have run. Raise SpecError for one that is no TOML."""
    tables = [parse(content.decode(errors="surrogateescape"), name) for name, content in specs.items()]
    return [Executable(".".join(path), value, place) for table in (*tables, *map(setting, settings))
            for path, value, place in _leaves(table) if _is_run(path)]


def _is_run(path: Sequence[str]) -> bool:
    """Tell whether a key says how workers are started, or with what."""
    return path[0] == EXECUTOR or any(above == "resources" and key in ENGINES for above, key in pairwise(path))


def _leaves(table: Table, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any, Place]]:
    """Yield the path of each key that holds no table, however it is written, with its value and its place."""
    for key, value in table.items():
        path = (*above, *key.split("."))
        inner = [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, Table)]
        for one in inner:
            yield from _leaves(one, path)
        if not inner:
            yield path, value, table.keys_at[key]
