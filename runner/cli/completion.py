"""What a shell offers to complete; it answers within a moment, so pydantic, numpy and torch stay out of it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from click import Context, Parameter
from click.shell_completion import CompletionItem

_RUN = re.compile(r"[0-9a-f]{12}")

_NOT_BUILT = {"profiles", "suites"}

_MOST = 1000
"""How many files and runs are looked at, so that a large folder does not keep the shell waiting."""


def specs(context: Context, parameter: Parameter, incomplete: str) -> list[str]:
    """Return the paths of specs that can be built, as they would be written from here."""
    folder = os.path.dirname(incomplete)
    if folder:
        return sorted(_toml(folder, incomplete))
    if Path("specs").is_dir():
        return sorted(_toml("specs", incomplete))
    return sorted(path.removeprefix("./") for path in _toml(".", f"./{incomplete}"))


def profiles(context: Context, parameter: Parameter, incomplete: str) -> list[str]:
    """Return the names of the project's profiles."""
    names = (path.stem for path in (_project() / "specs" / "profiles").glob("*.toml"))
    return sorted(name for name in names if name.startswith(incomplete))


def executors(context: Context, parameter: Parameter, incomplete: str) -> list[str]:
    """Return the names of the executors, the package's and the project's own."""
    folders = (Path(__file__).parents[1] / "worker" / "executors", _project() / "parts" / "executors")
    return sorted(path.stem for folder in folders for path in folder.glob("[a-z]*.py")
                  if path.stem.startswith(incomplete))


def runs(context: Context, parameter: Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the ids of finished runs, each with its name."""
    folders = (_project() / "registry").glob(f"{incomplete}*") if _RUN.match(incomplete.ljust(12, "0")) else ()
    found = sorted(folder for folder in folders if _RUN.fullmatch(folder.name))
    return [CompletionItem(folder.name, help=_name(folder)) for folder in found[:_MOST]]


def settings(context: Context, parameter: Parameter, incomplete: str) -> list[str]:
    """Return the keys that `--set` may take, from the project's schema."""
    with suppress(OSError, ValueError, KeyError):
        schema = json.loads((_project() / "specs" / ".schema" / "profile.json").read_bytes())
        keys = (key for key in _keys(schema) if key.startswith(incomplete))
        return sorted(set(keys) - {"extends", "description"})
    return []


def _project() -> Path:
    """Return the nearest folder from here upwards that holds `specs/profiles`, else this one."""
    here = Path.cwd()
    return next((one for one in (here, *here.parents) if (one / "specs" / "profiles").is_dir()), here)


def _toml(start: str, incomplete: str) -> Iterator[str]:
    """Yield the specs in a folder and below it whose paths begin as told."""
    seen = 0
    for here, folders, files in os.walk(start):
        seen += len(files) + len(folders)
        if seen > _MOST:
            return
        paths = [os.path.join(here, name) for name in files if name.endswith(".toml")]
        yield from (path for path in paths if path.startswith(incomplete))
        folders[:] = [name for name in folders if name[0] != "." and name not in _NOT_BUILT
                      and ((path := os.path.join(here, name)).startswith(incomplete) or incomplete.startswith(path))]


def _name(folder: Path) -> str:
    """Return what a run is called, or an empty string where its manifest cannot be read."""
    with suppress(OSError, ValueError, KeyError):
        return str(json.loads((folder / "manifest.json").read_bytes())["name"])
    return ""


def _keys(schema: dict[str, Any], above: str = "") -> Iterator[str]:
    """Yield the dotted keys of all values that a schema describes; that of a table of anything ends in a dot."""
    tables = [one for one in (schema, *schema.get("anyOf", ())) if "properties" in one]
    for table in tables:
        for key, value in table["properties"].items():
            yield from _keys(value, f"{above}{key}.")
    if not tables:
        yield above if "additionalProperties" in schema else above[:-1]
