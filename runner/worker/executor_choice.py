"""Choice of the executor by command line or profile, with its settings."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from pathlib import Path

from ..errors import Place, SpecError
from ..specs.merge import COMMAND_LINE, merged, nested, setting
from ..specs.spec_files import EXECUTOR, SpecFiles
from ..specs.validation import PartBuilder
from .executors import Executor

PREFIX = f"{EXECUTOR}."
"""Prefix of the executor's settings."""


def split_settings(settings: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split settings into those of models and those of the executor."""
    of_executor = [text for text in settings if text.startswith(PREFIX)]
    return [text for text in settings if text not in of_executor], of_executor


def choose(name: str | None, settings: Sequence[str], project: Path, profile: str) -> Executor:
    """Return the executor called `name`, else the profile's, else `local`, with the profile's settings and these.

    Raise SpecError with every problem of name and settings.
    """
    type_name = name or "local"
    at = Place(COMMAND_LINE, text=f"--executor {type_name}", column=len("--executor ") + 1, width=len(type_name))
    choice, defaults = nested([EXECUTOR, "type"], type_name, at, at), SpecFiles(project).executor(profile)
    layers = [defaults, choice] if name else [choice, defaults]
    table = reduce(merged, [*layers, *map(setting, settings)])
    builder = PartBuilder(project)
    executor = builder.part(Executor, table[EXECUTOR], table.values_at[EXECUTOR], EXECUTOR)  # type: ignore[type-abstract]
    if executor is None:
        raise SpecError(*builder.problems)
    return executor
