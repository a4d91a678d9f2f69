"""Engines: the executor that a command line or a profile names, with its settings."""

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
"""How a setting begins that is the executor's."""


def divided(settings: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the settings of models and those of the executor."""
    own = [text for text in settings if text.startswith(PREFIX)]
    return [text for text in settings if text not in own], own


def choose(name: str | None, settings: Sequence[str], project: Path, profile: str) -> Executor:
    """Return the executor of a name, else the profile's, else `local`; what the profile sets of it holds for both.

    Raise SpecError with every problem of the name and of the settings.
    """
    said = name or "local"
    at = Place(COMMAND_LINE, text=f"--executor {said}", column=len("--executor ") + 1, width=len(said))
    asked, ground = nested([EXECUTOR, "type"], said, at, at), SpecFiles(project).executor(profile)
    layers = [ground, asked] if name else [asked, ground]
    table = reduce(merged, [*layers, *map(setting, settings)])
    assembly = PartBuilder(project)
    executor = assembly.part(Executor, table[EXECUTOR], table.values_at[EXECUTOR], EXECUTOR)  # type: ignore[type-abstract]
    if executor is None:
        raise SpecError(*assembly.problems)
    return executor
