"""What of somebody else's files a build would run on this machine: executors, and options for a cluster's jobs.

Everything else in a bundle is data. Own parts (Python) are never in one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

from .errors import Place, Problem, SpecError, UsageError
from .overlays import setting
from .references import EXECUTOR
from .syntax import written
from .toml import Table, parsed

RESOURCES, EXTRA = "resources", "extra"
"""Where a spec says options of its own for a cluster's jobs, which can name programs."""


def executable(files: Mapping[str, bytes], settings: Sequence[str]) -> list[str]:
    """Return a line, with file and line, for each table of some specs that says what is run; of settings, too.

    Whatever a file is called, another may extend it; one that is no TOML runs nothing, since no build can read it.
    """
    tables = []
    for name, data in sorted(files.items()):
        with contextlib.suppress(SpecError):
            tables.append(parsed(data, name))
    for text in settings:
        with contextlib.suppress(SpecError):
            tables.append(setting(text))
    return [line for table in tables for line in _lines(table)]


def _lines(table: Table) -> Iterator[str]:
    """Yield a line for each key of a file that says what is run, wherever in it a table of that name stands."""
    for key, value in table.items():
        if key == EXECUTOR:
            yield f"{_at(table.keys_at[key])}: {key} = {written(value)}"
        elif isinstance(value, Table):
            if key == RESOURCES and EXTRA in value:
                yield f"{_at(value.keys_at[EXTRA])}: {key}.{EXTRA} = {written(value[EXTRA])}"
            yield from _lines(value)


def _at(place: Place) -> str:
    return f"{place.file}:{place.line}" if place.line else f"`{place.text}`"


def refused(lines: Sequence[str], command: str) -> UsageError:
    """Return the error of a bundle that holds what would be run; `command` takes it all the same."""
    return UsageError(Problem("this bundle says what a build is to run on this machine, and nothing was taken",
                              notes=tuple(lines), hint=f"where you trust it: `{command}`"))
