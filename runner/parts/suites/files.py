"""Suites read from tab-separated files, such as those of the course."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from ...errors import DataError, Place, Problem, StorageError, did_you_mean
from ...files import sha256
from ...part import Part
from ...tasks.data import SPLITS, Data, Examples, Task
from . import Suite

if TYPE_CHECKING:
    import _csv


class Source(Part):
    """One task: what it asks for, and its files and columns."""

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
    """File of the examples that epochs, members and weights are chosen on."""
    test: str | None = None
    """File of the examples that nothing is chosen on; its labels may be missing."""

    def task(self) -> Task:
        """Return what the rest of the house knows of the task."""
        return Task(title=self.title, kind=self.kind, classes=self.classes, low=self.low, high=self.high,
                    sentences=2 if len(self.columns) == 2 else 1)


class Files(Suite):
    """Tab-separated files with a header line, quoted as pandas writes them.

    Columns are found by name; a header that lacks the name of its first column (a pandas index) is understood.
    """

    type = "files"

    tasks: dict[str, Source]
    """The tasks by name; use sentiment, paraphrase and similarity for the same specs to run everywhere."""
    folder: str | None = None
    """Where the files are, from the project's folder; left out: where MTRUN_DATA says, else `data`."""
    bad_rows: Literal["error", "drop"] = "error"
    """What to do with a row that lacks a sentence, an id or a valid label; dropped rows are counted and recorded."""

    def meanings(self) -> Mapping[str, Task]:
        """Return the tasks by name, without reading any data."""
        return {name: source.task() for name, source in self.tasks.items()}

    def inputs(self, project: Path) -> dict[str, str] | None:
        """Return the sha256 of each data file; None where one cannot be read, which loading says better."""
        try:
            return {name: sha256(self._where(project) / name) for name in self._names()}
        except StorageError:
            return None

    def _names(self) -> list[str]:
        """Return the names of all files, sorted."""
        return sorted({file for source in self.tasks.values() for split in SPLITS if (file := getattr(source, split))})

    def _where(self, project: Path) -> Path:
        """Return the folder of the files."""
        return project / Path(self.folder or os.environ.get("MTRUN_DATA") or "data").expanduser()

    def load(self, project: Path) -> Data:
        """Return the examples; relative folders start at `project`. Raise DataError with file and line."""
        folder = self._where(project)
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
                        problems += reader.bad
                    problems += reader.broken
        if problems:
            raise DataError(*problems)
        return Data(self.meanings(), splits, dropped)


@dataclass
class _Reader:
    """Reads one file; `bad` are rows that can be dropped, `broken` is what no dropping mends."""

    path: Path
    source: Source
    needs_label: bool
    bad: list[Problem] = field(default_factory=list)
    broken: list[Problem] = field(default_factory=list)

    def read(self) -> Examples:
        rows = list(self._rows())
        if not rows and not self.broken:
            self._break(f"{self.path.name} has no usable example", hint="a split needs at least one")
        ids, sentences, labels = [r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows]
        known = bool(labels) and not any(math.isnan(label) for label in labels)
        return Examples(
            ids=tuple(ids),
            first=tuple(s[0] for s in sentences),
            second=tuple(s[1] for s in sentences) if len(self.source.columns) == 2 else (),
            labels=np.array(labels, dtype=np.float64) if known else None,
        )

    def _rows(self) -> Iterator[tuple[str, list[str], float]]:
        """Yield id, sentences and label (nan where a test file has none) of every good row."""
        try:
            with self.path.open(encoding="utf-8", newline="") as file:
                yield from self._parse(csv.reader(file, delimiter="\t"))
        except (csv.Error, UnicodeDecodeError, OSError) as error:
            self._break(f"cannot read {self.path.name}: {error}")

    def _parse(self, reader: _csv.Reader) -> Iterator[tuple[str, list[str], float]]:
        header = next(reader, [])
        columns = self._columns(header)
        if not columns:
            return
        seen: set[str] = set()
        line = reader.line_num + 1
        for row in reader:
            shift = len(row) - len(header)  # 1 where pandas wrote an index without a title
            cells = {name: row[at + shift] for name, at in columns.items()} if shift >= 0 else {}
            if wrong := self._wrong(cells, seen):
                hint = 'mend the row, or let such rows be dropped: bad_rows = "drop" in the suite'
                self.bad.append(Problem(f"row {wrong}", Place(str(self.path), line), hint=hint))
            else:
                seen.add(cells[self.source.id])
                yield cells[self.source.id], [cells[c].strip() for c in self.source.columns], self._label(cells)
            line = reader.line_num + 1

    def _columns(self, header: list[str]) -> dict[str, int]:
        """Return where each column that is needed stands; the label may be missing where it is not needed."""
        needed = [self.source.id, *self.source.columns] + [self.source.label] * self.needs_label
        for name in needed:
            if name not in header:
                self._break(f"{self.path.name} has no column `{name}`; it has {', '.join(filter(None, header))}",
                            hint=did_you_mean(name, filter(None, header)), line=1)
                return {}
        return {name: header.index(name) for name in (*needed, self.source.label) if name in header}

    def _wrong(self, cells: dict[str, str], seen: set[str]) -> str:
        """Return what is wrong with a row, or an empty string."""
        if not cells:
            return "has too few columns"
        for column in (self.source.id, *self.source.columns):
            if not cells[column].strip():
                return f"has no `{column}`"
        identity = cells[self.source.id]
        if identity in seen:
            return f"repeats the id {identity}"
        if not identity.isprintable():
            return "has an id with control characters"
        return self._wrong_label(cells)

    def _wrong_label(self, cells: dict[str, str]) -> str:
        text = cells.get(self.source.label, "")
        if not text and not self.needs_label:
            return ""
        label, task = self._label(cells), self.source
        if task.kind == "regression":
            good, expected = task.low <= label <= task.high, f"a number from {task.low:g} to {task.high:g}"
        else:
            count = task.classes if task.kind == "classification" else 2
            good, expected = label in range(count), f"a whole number from 0 to {count - 1}"
        return "" if good else f"has the label `{text}` in `{task.label}`; expected {expected}"

    def _label(self, cells: dict[str, str]) -> float:
        try:
            return float(cells[self.source.label])
        except (KeyError, ValueError):
            return math.nan

    def _break(self, message: str, hint: str = "", line: int = 0) -> None:
        self.broken.append(Problem(message, Place(str(self.path), line), hint=hint))
