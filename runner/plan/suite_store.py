"""The suites of a plan by the hash of their content.

Making or reading examples only to hash them is most of what a plan would cost, so hashes are remembered in the
registry's cache under a key of all that decides the examples: the suite's parameters, the bytes of its files and of its
code, the Python version. Times and paths are no part of it: copies and touched files are the same, changed ones are
not. Who uses the examples has them compared with the hash.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import DataError
from ..files import json_bytes, read_cache, sha256, write_cache
from ..part import Part
from ..parts.suites import Suite
from ..tasks.data import Data
from ..tasks.table_files import Table


@dataclass(eq=False)
class SuiteStore(Mapping[str, Data]):
    """Suites by content hash; their examples are loaded when they are asked for."""

    project: Path
    folder: Path
    """Where hashes are remembered; what is in it can be deleted at any time."""
    suites: dict[str, Suite] = field(default_factory=dict)
    dropped: dict[str, dict[str, int]] = field(default_factory=dict)
    """How many bad rows of which file were left out, by content hash."""
    _data: dict[str, Data] = field(default_factory=dict)

    def add(self, suite: Suite) -> str:
        """Return the hash of a suite's content. Raise DataError."""
        path = self._note(suite)
        known = read_cache(path) if path else None
        if known is not None:
            note = json.loads(known)
        else:
            data = suite.load(self.project)
            note = {"sha256": data.sha256(), "dropped": dict(data.dropped)}
            self._data[note["sha256"]] = data
            if path and path == self._note(suite):  # else a file changed while it was read
                write_cache(path, json_bytes(note))
        content: str = note["sha256"]
        self.suites.setdefault(content, suite)
        self.dropped[content] = note["dropped"]
        return content

    def put(self, content: str, data: Data) -> None:
        """Take examples that stand for those of a hash, such as labels without their sentences."""
        self._data[content] = data

    def update(self, other: SuiteStore) -> None:
        """Take what others know of suites."""
        self.suites, self.dropped = other.suites | self.suites, other.dropped | self.dropped
        self._data = other._data | self._data

    def __contains__(self, content: object) -> bool:
        """Tell whether there are such examples, without loading them."""
        return content in self._data or content in self.suites

    def __iter__(self) -> Iterator[str]:
        """Yield the hashes."""
        return iter({**self.suites, **self._data})

    def __len__(self) -> int:
        """Return how many suites there are."""
        return len({*self.suites, *self._data})

    def __getitem__(self, content: str) -> Data:
        """Return a suite's examples. Raise DataError where they are no longer those that were hashed."""
        if content not in self._data:
            suite = self.suites[content]
            data = suite.load(self.project)
            if data.sha256() != content:
                if note := self._note(suite):
                    note.unlink(missing_ok=True)
                raise DataError(f"the data of the suite `{suite.name}` changed meanwhile; build again")
            self._data[content] = data
        return self._data[content]

    def _note(self, suite: Suite) -> Path | None:
        """Return the file that may hold the hash of a suite's content; None where a suite does not say its inputs."""
        inputs = suite.inputs(self.project)
        if inputs is None:
            return None
        own, base = Path(inspect.getfile(type(suite))).parent, Path(inspect.getfile(Suite)).parent
        code = [sha256(path) for folder in (own, base) for path in sorted(folder.glob("*.py"))]
        read = [sha256(Path(inspect.getfile(each))) for each in (Part, Data, Table)]
        key = json.dumps([suite.canonical(), inputs, code, read, sys.version])
        return self.folder / hashlib.sha256(key.encode()).hexdigest()
