"""Shell completion of paths, names and keys, without importing pydantic, numpy or torch: it must be instant."""

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
"""Maximal number of files or runs that are looked at, so that a large folder does not keep the shell waiting."""


def complete_specs(context: Context, parameter: Parameter, incomplete: str) -> list[str]:
    """Return the paths of specs that can be built, relative to the working folder."""
    folder = os.path.dirname(incomplete)
    if folder:
        return sorted(_toml(folder, incomplete))
    if Path("specs").is_dir():
        return sorted(_toml("specs", incomplete))
    return sorted(path.removeprefix("./") for path in _toml(".", f"./{incomplete}"))


def complete_profiles(context: Context, parameter: Parameter, incomplete: str) -> list[str]:
    """Return the names of the project's profiles."""
    names = (path.stem for path in (_project() / "specs" / "profiles").glob("*.toml"))
    return sorted(name for name in names if name.startswith(incomplete))


def complete_executors(context: Context, parameter: Parameter, incomplete: str) -> list[str]:
    """Return the names of the package's and the project's executors."""
    folders = (Path(__file__).parents[1] / "worker" / "executors", _project() / "parts" / "executors")
    return sorted(path.stem for folder in folders for path in folder.glob("[a-z]*.py")
                  if path.stem.startswith(incomplete))


def complete_runs(context: Context, parameter: Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the ids of finished runs, each with its name."""
    folders = (_project() / "registry").glob(f"{incomplete}*") if _RUN.match(incomplete.ljust(12, "0")) else ()
    runs = sorted(folder for folder in folders if _RUN.fullmatch(folder.name))
    return [CompletionItem(folder.name, help=_name(folder)) for folder in runs[:_MOST]]


def complete_settings(context: Context, parameter: Parameter, incomplete: str) -> list[str]:
    """Return the keys that `--set` takes, from the project's JSON Schema."""
    with suppress(OSError, ValueError, KeyError):
        schema = json.loads((_project() / "specs" / ".schema" / "profile.json").read_bytes())
        keys = (key for key in _keys(schema) if key.startswith(incomplete))
        return sorted(set(keys) - {"extends", "description"})
    return []


def _project() -> Path:
    """Return the folder of the project that the working folder is in."""
    from ..project import Project

    return Project.here().folder


def _toml(start: str, incomplete: str) -> Iterator[str]:
    """Yield the specs in a folder and below it whose paths start with `incomplete`."""
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
    """Return the name of a run, or an empty string where its manifest cannot be read."""
    with suppress(OSError, ValueError, KeyError):
        return str(json.loads((folder / "manifest.json").read_bytes())["name"])
    return ""


def _keys(schema: dict[str, Any], above: str = "") -> Iterator[str]:
    """Yield the dotted keys of all values in a schema; the key of a table with arbitrary keys ends in a dot."""
    tables = [table for table in (schema, *schema.get("anyOf", ())) if "properties" in table]
    for table in tables:
        for key, value in table["properties"].items():
            yield from _keys(value, f"{above}{key}.")
    if not tables:
        yield above if "additionalProperties" in schema else above[:-1]
