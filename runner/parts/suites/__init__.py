"""Suites: sets of tasks with data. One file per kind of data source."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import Field

from ...part import Part
from ...tasks.data import Data, Task


class Suite(Part):
    """Named tasks with train, dev and test examples."""

    name: str = Field(default="", exclude=True)
    """Name in tables; by default the name of its file."""

    @abstractmethod
    def meanings(self) -> Mapping[str, Task]:
        """Return the tasks by name, without reading any data."""

    def resolved(self, project: Path) -> Suite:
        """Return the suite with everything that its tasks must know of the data, such as the names of labels."""
        return self

    def notes(self) -> Iterable[str]:
        """Return what every plan should say of the suite."""
        return ()

    def inputs(self, project: Path) -> dict[str, str] | None:
        """Return the sha256 of each data file, {} for none; None if that is unknown.

        These, the parameters and the Python files of the part's folder must determine the examples: while they stay
        the same, a plan does not load them.
        """
        return None

    def data_files(self, project: Path) -> Mapping[str, Mapping[str, Sequence[str]]]:
        """Return the names of the data files by task and split; none for a split that has no file of its own."""
        return {}

    @abstractmethod
    def load(self, project: Path) -> Data:
        """Load the examples; relative folders are relative to `project`. Raise DataError with file and line."""
