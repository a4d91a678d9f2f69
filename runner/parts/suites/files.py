"""Suites read from delimited text files, such as those of CS 224N."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from ...errors import DataError, Place, Problem, StorageError
from ...files import open_file, reported, sha256
from ...part import Part
from ...tasks.data import SPLITS, Data, Examples, Task
from ...tasks.table_files import Table
from . import Suite

DROP = 'correct the row, or drop such rows: --set suite.bad_rows=drop, or `bad_rows = "drop"` at the top of the suite'
"""Hint for a row that cannot be used."""


class Source(Part):
    """One task: its type, files and columns."""

    title: str
    """Column title in tables, such as SST."""
    kind: Literal["classification", "binary", "regression"]
    """classification: k logits, accuracy; binary: 1 logit, accuracy at 0; regression: 1 score, Pearson."""
    classes: int = Field(default=2, ge=2)
    """Number of classes of a classification; labels are 0 to classes - 1."""
    low: float = 0.0
    """Lowest label of a regression."""
    high: float = 1.0
    """Highest label of a regression."""
    columns: tuple[str, ...] = Field(min_length=1, max_length=2)
    """Columns of the sentence, or of the two sentences of a pair."""
    label: str
    """Column of the label."""
    id: str = "id"
    """Column of the example's id, unique within a file."""
    train: str
    """File of the training examples."""
    dev: str
    """File of the dev examples, on which epochs, members and weights are chosen."""
    test: str | None = None
    """File of the test examples, on which nothing is chosen; labels may be missing."""

    @model_validator(mode="after")
    def _range_is_not_empty(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"`low` must be below `high`; they are {self.low:g} and {self.high:g}")
        return self

    def task(self) -> Task:
        """Return the task without its files and columns."""
        return Task(title=self.title, kind=self.kind, classes=self.classes, low=self.low, high=self.high,
                    sentences=2 if len(self.columns) == 2 else 1)


class Files(Suite):
    """Tables with a header line, separated by tabs, commas or semicolons and quoted as pandas writes them.

    Columns are found by name; a header may lack the name of its first column (a pandas index).
    """

    type = "files"

    tasks: dict[str, Source]
    """The tasks by name; if they are sentiment, paraphrase and similarity, specs run on the demo suite, too."""
    folder: str | None = None
    """Folder of the files, relative to the project; by default that of MTRUN_DATA, else `data`."""
    bad_rows: Literal["error", "drop"] = "error"
    """Handling of rows that lack a sentence, an id or a valid label; the number of dropped rows is recorded."""

    def meanings(self) -> Mapping[str, Task]:
        """Return the tasks by name, without reading any data."""
        return {name: source.task() for name, source in self.tasks.items()}

    def inputs(self, project: Path) -> dict[str, str] | None:
        """Return the sha256 of each data file; None if one cannot be read, which `load` reports with its place."""
        try:
            return {name: sha256(self._folder(project) / name) for name in self._names()}
        except StorageError:
            return None

    def _names(self) -> list[str]:
        """Return the names of all files, sorted."""
        return sorted({file for source in self.tasks.values() for split in SPLITS if (file := getattr(source, split))})

    def _folder(self, project: Path) -> Path:
        """Return the folder of the files."""
        folder = os.path.expanduser(self.folder or os.environ.get("MTRUN_DATA") or "data")
        return Path.cwd() / folder if not self.folder and os.environ.get("MTRUN_DATA") else project / folder

    def load(self, project: Path) -> Data:
        """Load the examples; relative folders are relative to `project`. Raise DataError with file and line."""
        folder = self._folder(project)
        if missing := [name for name in self._names() if not (folder / name).is_file()]:
            raise DataError(Problem(f"no data file {', '.join(missing)} in {folder}", hint=(
                f"set MTRUN_DATA to the folder that holds {'it' if len(missing) == 1 else 'them'}, or pass "
                "--set suite.folder=FOLDER")))
        splits: dict[str, dict[str, Examples]] = {}
        problems: list[Problem] = []
        dropped: dict[str, int] = {}
        for name, source in self.tasks.items():
            for split in SPLITS:
                if file := getattr(source, split):
                    reader = _Reader(folder / file, source, needs_label=split != "test")
                    splits.setdefault(name, {})[split] = reader.read()
                    if reader.bad and self.bad_rows == "drop":
                        dropped[file] = len(reader.bad)
                    else:
                        problems += sorted(reader.bad, key=lambda problem: problem.place or Place(""))
                    problems += sorted(reader.broken, key=lambda problem: problem.place or Place(""))
        if problems:
            raise DataError(*dict.fromkeys(problems))  # a file may serve two splits
        return Data(self.meanings(), splits, dropped)


@dataclass
class _Reader:
    """Parser of one file; `bad` are problems of rows that can be dropped, `broken` all others."""

    path: Path
    source: Source
    needs_label: bool
    bad: list[Problem] = field(default_factory=list)
    broken: list[Problem] = field(default_factory=list)

    def read(self) -> Examples:
        """Return the examples of the valid rows."""
        rows: list[tuple[int, dict[str, str]]] = []
        try:
            with reported("read", self.path):
                rows = list(self._rows(Table(open_file(self.path), str(self.path))))
        except (DataError, StorageError) as error:
            self.broken += error.problems
        valid = self._valid(rows)
        if not valid and not self.broken:
            self.broken.append(Problem(f"{self.path.name} has no usable example", Place(str(self.path)),
                                       hint="a split needs at least one"))
        sentences = [[cells[column].strip() for column in self.source.columns] for cells in valid]
        return Examples(
            ids=tuple(cells[self.source.id] for cells in valid),
            first=tuple(pair[0] for pair in sentences),
            second=tuple(pair[1] for pair in sentences) if len(self.source.columns) == 2 else (),
            labels=np.array([self._label(cells) for cells in valid]) if self._is_labelled(valid) and valid else None,
        )

    def _rows(self, table: Table) -> Iterator[tuple[int, dict[str, str]]]:
        """Yield line and cells by column of every well-formed row. Raise DataError for a missing column."""
        needed = [self.source.id, *self.source.columns] + [self.source.label] * self.needs_label
        known = [*needed, self.source.label] if self.source.label in table.header else needed
        at = {column: table.index(column) for column in known}
        for row in table.rows():
            if row.problem:
                self._add_bad(row.problem)
            else:
                yield row.line, {column: row.cells[position] for column, position in at.items()}

    def _valid(self, rows: Sequence[tuple[int, dict[str, str]]]) -> list[dict[str, str]]:
        """Return the cells of rows with unique ids, sentences and valid labels; add problems of others to `bad`."""
        valid: list[dict[str, str]] = []
        seen: set[str] = set()
        labelled = self._is_labelled([cells for _, cells in rows])
        for line, cells in rows:
            if wrong := self._wrong(cells, seen) or (self._wrong_label(cells) if labelled else ""):
                self._add_bad(Problem(f"row {wrong}", Place(str(self.path), line)))
            else:
                seen.add(cells[self.source.id])
                valid.append(cells)
        return valid

    def _add_bad(self, problem: Problem) -> None:
        """Record the problem of a row that can be dropped."""
        hint = "; ".join(filter(None, [problem.hint, DROP]))
        self.bad.append(Problem(problem.message, problem.place, problem.notes, hint))

    def _is_labelled(self, rows: Sequence[Mapping[str, str]]) -> bool:
        """Return whether rows have labels; hidden labels of a test file are all empty or all -1 (as in GLUE)."""
        texts = {row.get(self.source.label, "").strip() for row in rows}
        is_hidden = texts <= {""} or (texts <= {"-1", "-1.0"} and not self._is_valid(-1.0))
        return self.needs_label or not is_hidden

    def _wrong(self, cells: Mapping[str, str], seen: set[str]) -> str:
        """Return the problem with the id or the sentences of a row, or an empty string."""
        for column in (self.source.id, *self.source.columns):
            if not cells[column].strip():
                return f"has no `{column}`"
        identity = cells[self.source.id]
        if identity in seen:
            return f"repeats the id {identity}"
        return "" if identity.isprintable() else "has an id with control characters"

    def _wrong_label(self, cells: Mapping[str, str]) -> str:
        """Return the problem with the label of a row, or an empty string."""
        text, task = cells[self.source.label], self.source
        if not self.needs_label and not text.strip():
            return f"has no `{task.label}`, which other rows of this test file have"
        if self._is_valid(self._label(cells)):
            return ""
        last = (task.classes if task.kind == "classification" else 2) - 1
        expected = (f"a number from {task.low:g} to {task.high:g}" if task.kind == "regression"
                    else f"a whole number from 0 to {last}")
        return f"has the label `{text}` in `{task.label}`; expected {expected}"

    def _is_valid(self, label: float) -> bool:
        """Return whether a number is a label of the task."""
        task = self.source
        if task.kind == "regression":
            return task.low <= label <= task.high
        return label in range(task.classes if task.kind == "classification" else 2)

    def _label(self, cells: Mapping[str, str]) -> float:
        try:
            return float(cells[self.source.label])
        except ValueError:
            return math.nan
