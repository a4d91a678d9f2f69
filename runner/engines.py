"""Engines: the executor that a command line names, with its settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .assembly import Assembly
from .errors import Place, SpecError
from .executors import Executor
from .overlays import COMMAND_LINE, setting, united
from .toml import Table

PREFIX = "executor."
"""How a setting begins that is the executor's."""


def divided(settings: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the settings of models and those of the executor."""
    own = [text for text in settings if text.startswith(PREFIX)]
    return [text for text in settings if text not in own], own


def named(name: str, settings: Sequence[str], project: Path) -> Executor:
    """Return the executor of a name. Raise SpecError with every problem of the name and of its settings."""
    at = Place(COMMAND_LINE, text=f"--executor {name}", column=len("--executor ") + 1, width=len(name))
    table = Table(at)
    table.put("type", name, at, at)
    table = united(table, *(setting(text)["executor"] for text in settings))
    assembly = Assembly(project)
    executor = assembly.part(Executor, table, at, "executor")  # type: ignore[type-abstract]
    if executor is None:
        raise SpecError(*assembly.problems)
    return executor
