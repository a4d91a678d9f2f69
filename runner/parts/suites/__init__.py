"""Suites: named tasks and their examples. A file in this folder is a kind of source that data can come from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from ...part import Part
from ...tasks.data import Data, Task


class Suite(Part):
    """Named tasks with train, dev and test examples."""

    name: str = Field(default="", exclude=True)
    """What tables call it; left out: the name of its file."""

    @abstractmethod
    def meanings(self) -> Mapping[str, Task]:
        """Return the tasks by name, without reading any data."""

    def inputs(self, project: Path) -> dict[str, str] | None:
        """Return the sha256 of each file that the examples are read from, {} for none; None where that is not known.

        With the parameters and the Python files of the part's folder they must decide the examples: as long as these
        stay the same, a plan does not load them.
        """
        return None

    @abstractmethod
    def load(self, project: Path) -> Data:
        """Return the examples; relative folders start at `project`. Raise DataError with file and line."""
