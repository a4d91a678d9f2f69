"""TOML with limits, and the line and column of every key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .errors import Place


class Table(dict[str, Any]):
    """A TOML table that knows where each of its keys and values stands.

    `place` is where the table begins (its header, its key, or line 1 of the file for the root);
    `keys_at[key]` is the place of a key, `values_at[key]` that of its value. Nested tables are
    `Table`s, arrays are `Array`s. Merging moves a sub-table with its places.
    """

    place: Place
    keys_at: dict[str, Place]
    values_at: dict[str, Place]

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place, self.keys_at, self.values_at = place, {}, {}

    def put(self, key: str, value: Any, key_at: Place, value_at: Place) -> None:
        """Set a key together with its places."""
        self[key] = value
        self.keys_at[key], self.values_at[key] = key_at, value_at


class Array(list[Any]):
    """A TOML array that knows where each of its items stands (`items_at[i]`)."""

    items_at: list[Place]

    def __init__(self) -> None:
        super().__init__()
        self.items_at = []


def read(path: Path, shown_as: str = "") -> Table:
    """Read a TOML file; errors name it `shown_as`. Raise SpecError with the place of what is wrong."""
    raise NotImplementedError


def parse(text: str, shown_as: str) -> Table:
    """Parse TOML text; errors name it `shown_as`. Raise SpecError with the place of what is wrong."""
    raise NotImplementedError
