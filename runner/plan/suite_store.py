"""The suites of a plan by the hash of their content.

Loading examples only to hash them would dominate the time of a plan, so hashes are kept in the registry's cache under a
key of everything that determines the examples: the parameters of the suite, the bytes of its files and of its code, the
Python version. Times and paths are not part of the key, so copies and touched files hit the cache. Examples that are
loaded are compared with the hash.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field, ValidationError

from ..errors import DataError
from ..files import json_bytes, read_cache, sha256, write_cache
from ..part import Part, StrictRecord
from ..parts.suites import Suite
from ..tasks.data import Data


class _Entry(StrictRecord):
    """What the cache knows of a suite."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    notes: list[str]


MANY = 0.05
"""Share of the examples of a split above which sentences that another split has, too, are told."""


def _cached(path: Path) -> _Entry | None:
    """Return the entry in a file of the cache, or None where there is no valid one."""
    with contextlib.suppress(ValidationError):
        return _Entry.model_validate_json(read_cache(path) or b"")
    return None


@dataclass(eq=False)
class SuiteStore(Mapping[str, Data]):
    """Examples of suites by content hash, loaded on access."""

    project: Path
    folder: Path
    """Cache of hashes; its files can be deleted at any time."""
    suites: dict[str, Suite] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    """What users should know of the examples, such as dropped rows, by content hash."""
    _data: dict[str, Data] = field(default_factory=dict)

    def add(self, suite: Suite) -> str:
        """Add a suite and return the hash of its content. Raise DataError."""
        path = self._cache_file(suite)
        entry = _cached(path) if path else None
        if entry is None:
            data = suite.load(self.project)
            entry = _Entry(sha256=data.sha256(), notes=list(_notes(suite, data)))
            self._data[entry.sha256] = data
            if path and path == self._cache_file(suite):  # else a file changed while it was read
                write_cache(path, json_bytes(entry.model_dump()))
        self.suites.setdefault(entry.sha256, suite)
        self.notes[entry.sha256] = [*suite.notes(), *entry.notes]
        return entry.sha256

    def put(self, content: str, data: Data) -> None:
        """Set the examples of a hash, for example labels without sentences."""
        self._data[content] = data

    def update(self, other: SuiteStore) -> None:
        """Add the suites of another store."""
        self.suites, self.notes = other.suites | self.suites, other.notes | self.notes
        self._data = other._data | self._data

    def __contains__(self, content: object) -> bool:
        """Return whether a hash is known, without loading its examples."""
        return content in self._data or content in self.suites

    def __iter__(self) -> Iterator[str]:
        """Yield the hashes."""
        return iter({**self.suites, **self._data})

    def __len__(self) -> int:
        """Return the number of suites."""
        return len({*self.suites, *self._data})

    def __getitem__(self, content: str) -> Data:
        """Return the examples of a suite. Raise DataError if their hash changed."""
        if content not in self._data:
            suite = self.suites[content]
            data = suite.load(self.project)
            if data.sha256() != content:
                if path := self._cache_file(suite):
                    path.unlink(missing_ok=True)
                raise DataError(f"the data of the suite `{suite.name}` changed meanwhile; build again")
            self._data[content] = data
        return self._data[content]

    def _cache_file(self, suite: Suite) -> Path | None:
        """Return the cache file of the hash of a suite, or None if the suite does not list its inputs."""
        inputs = suite.inputs(self.project)
        if inputs is None:
            return None
        own, base = Path(inspect.getfile(type(suite))).parent, Path(inspect.getfile(Suite)).parent
        code = [sha256(path) for folder in (own, base) for path in sorted(folder.glob("*.py"))]
        data = Path(inspect.getfile(Data))
        readers = [data.with_name(name) for name in ("json_files.py", "row_files.py", "table_files.py")]
        read = [sha256(path) for path in (Path(inspect.getfile(Part)), data, *readers)]
        key = json.dumps([suite.canonical(), inputs, code, read, sys.version])
        return self.folder / hashlib.sha256(key.encode()).hexdigest()


def _notes(suite: Suite, data: Data) -> Iterator[str]:
    """Yield the number of dropped rows of each file, and splits with many sentences of another."""
    for file, count in data.dropped.items():
        yield f"{count} row{'s' * (count > 1)} of {file} left out: bad_rows = \"drop\""
    for found in data.overlaps():
        if found.shared > MANY * found.total:
            yield (f"warning: {found.shared:,} of {found.total:,} examples in {found.split} of `{found.task}` have the "
                   f"sentences of an example in {found.earlier}, such as id {found.example}: its scores say little "
                   "about new sentences")
