"""Reader of the files of one split: rows with ids, sentences, valid labels and weights."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...errors import DataError, Place, Problem, StorageError
from ...files import reported
from ...tasks.data import Examples
from ...tasks.row_files import Rows, open_rows
from ._labels import Label, is_valid, label_of, listed, number, parsed
from ._shares import is_drawn
from ._source import Source

DROP = 'correct the row, or drop such rows: --set suite.bad_rows=drop, or `bad_rows = "drop"` at the top of the suite'
"""Hint for a row that cannot be used."""


class DataFile(NamedTuple):
    """A file of a split."""

    name: str
    """Name in the suite's folder, or on the hub."""
    path: Path
    share: float
    """Share of its rows that is used."""


class Example(NamedTuple):
    """A row that has all columns."""

    file: str
    """Place of its file."""
    line: int
    id: str
    sentences: tuple[str, ...]
    cells: tuple[str, ...]
    """Cells of the label; none in a test file without its columns."""
    group: str
    weight: str
    label: Label | None = None
    """None where labels are unknown."""


@dataclass
class SplitReader:
    """Parser of the files of one split; `bad` are problems of rows that can be dropped, `broken` all others."""

    source: Source
    split: str
    drops: bool
    """Whether bad rows are left out."""
    bad: list[Problem] = field(default_factory=list)
    broken: list[Problem] = field(default_factory=list)

    def read(self, files: Sequence[DataFile]) -> list[Example]:
        """Return the valid rows."""
        rows: list[Example] = []
        self._count = 0
        for file in files:
            try:
                with reported("read", file.path):
                    rows.extend(self._rows(file))
            except (DataError, StorageError) as error:
                self.broken += error.problems
        valid = self._valid(rows)
        if not valid and not self.broken:
            self.broken.append(Problem(f"{' and '.join(file.name for file in files)} has no usable example",
                                       Place(str(files[0].path)), hint="a split needs at least one"))
        return valid

    def count_bad(self, files: Sequence[DataFile]) -> dict[str, int]:
        """Return the number of rows that cannot be used, by file."""
        names = {str(file.path): file.name for file in files}
        return dict(Counter(names[problem.place.file] for problem in self.bad if problem.place))

    def _columns(self) -> list[str]:
        source, of_train = self.source, self.split == "train"
        return [source.id or "id", *(column for columns in source.sentences for column in columns),
                *source.label_columns, *filter(None, [source.group, source.weight] if of_train else [])]

    def _rows(self, file: DataFile) -> Iterator[Example]:
        """Yield the well-formed rows of a file that are in its share. Raise DataError for a missing column."""
        source, name = self.source, str(file.path)
        lists = source.label_columns if source.kind == "multilabel" else ()
        rows = open_rows(file.path, name, self._columns(), lists=lists, header=source.header, quotes=source.quotes)
        id_at = rows.index(source.id) if source.id else rows.index("id") if "id" in rows.header else None
        texts_at = [[rows.index(column) for column in columns] for columns in source.sentences]
        has_label = self.split != "test" or any(column in rows.header for column in source.label_columns)
        label_at = [rows.index(column) for column in source.label_columns] if has_label else []
        group_at, weight_at = self._train_column(source.group, rows), self._train_column(source.weight, rows)
        shared: dict[tuple[str, ...], tuple[str, ...]] = {}  # equal labels are one object
        for row in rows.rows():
            self._count += 1
            if row.problem:
                self._add_bad(row.problem)
                continue
            texts = tuple(self._sentence(number, [row.cells[at].strip() for at in several])
                          for number, several in enumerate(texts_at))
            cells = tuple(row.cells[at] for at in label_at)
            if is_drawn((*texts, *cells), file.share, source.split_seed):
                yield Example(name, row.line, str(self._count) if id_at is None else row.cells[id_at], texts,
                              shared.setdefault(cells, cells), "" if group_at is None else row.cells[group_at],
                              "" if weight_at is None else row.cells[weight_at])

    def _train_column(self, column: str | None, rows: Rows) -> int | None:
        """Return the position of a column that only training examples need. Raise DataError if it is missing."""
        return rows.index(column) if column and self.split == "train" else None

    def _sentence(self, number: int, cells: Sequence[str]) -> str:
        """Return a sentence: its cell; of several columns, each that is not empty behind the name of its column."""
        if isinstance(self.source.columns[number], str):
            return cells[0]
        columns = self.source.sentences[number]
        return " ".join(f"{column}: {cell}" for column, cell in zip(columns, cells, strict=True) if cell)

    def _valid(self, rows: Sequence[Example]) -> list[Example]:
        """Return rows with unique ids, sentences, valid labels and weights; add problems of others to `bad`."""
        valid: list[Example] = []
        seen: set[str] = set()
        labels: dict[tuple[str, ...], Label] = {}
        is_labelled = self._is_labelled(rows)
        if is_labelled and (problem := self._foreign_labels(rows)):
            self.broken.append(problem)
            return []
        for row in rows:
            try:
                self._check(row, seen)
                if is_labelled and row.cells not in labels:
                    labels[row.cells] = self._label(row)
            except ValueError as wrong:
                self._add_bad(Problem(f"row {wrong}", Place(row.file, row.line)))
            else:
                seen.add(row.id)
                valid.append(row._replace(label=labels[row.cells]) if is_labelled else row)
        return valid

    def _add_bad(self, problem: Problem) -> None:
        """Record the problem of a row that can be dropped."""
        hint = "; ".join(filter(None, [problem.hint, DROP]))
        self.bad.append(Problem(problem.message, problem.place, problem.notes, hint))

    def _is_labelled(self, rows: Sequence[Example]) -> bool:
        """Return whether rows have labels; hidden labels of a test file are all empty or all -1 (as in GLUE)."""
        texts = {cell.strip() for cells in {row.cells for row in rows} for cell in cells}
        is_hidden = texts <= {""} or (texts <= {"-1", "-1.0"} and not is_valid(-1.0, self.source))
        return self.split != "test" or not is_hidden

    def _foreign_labels(self, rows: Sequence[Example]) -> Problem | None:
        """Return the problem with labels that are words, or numbers from 1, where `labels` does not name them."""
        source = self.source
        if source.labels or source.kind in ("regression", "multilabel"):
            return None
        texts = {text for cells in {row.cells for row in rows} if (text := cells[0].strip())}
        numbers = {text for text in texts if not math.isnan(parsed(text, source))}
        limit = 2 if source.kind == "binary" else 100
        from_one = not self.drops and len(texts) == source.classes and len(numbers) == len(texts) and not all(
            is_valid(parsed(text, source), source) for text in texts)
        if not 2 <= len(texts) <= limit or (numbers and not from_one):
            return None
        names = sorted(texts, key=lambda text: (parsed(text, source), text) if from_one else (0.0, text))
        what = "numbers that do not count from 0" if from_one else "words"
        listed = ", ".join(f'"{name}"' for name in names)
        return Problem(f"`{source.label}` holds {what}: {', '.join(names[:10])}", Place(rows[0].file, rows[0].line),
                       hint=f"name them in the suite, in the order of the classes: labels = [{listed}]")

    def _check(self, row: Example, seen: set[str]) -> None:
        """Raise ValueError for a row without a usable id, sentence or weight."""
        if not row.id.strip():
            raise ValueError(f"has no `{self.source.id or 'id'}`")
        for columns, sentence in zip(self.source.sentences, row.sentences, strict=True):
            if not sentence:
                raise ValueError(f"has no {' or '.join(f'`{column}`' for column in columns)}")
        if row.id in seen:
            raise ValueError(f"repeats the id {row.id}")
        if not row.id.isprintable():
            raise ValueError("has an id with control characters")
        if self.source.weight and self.split == "train" and not 0 < number(row.weight) < math.inf:
            raise ValueError(f"has the weight `{row.weight}` in `{self.source.weight}`; expected a number above 0")

    def _label(self, row: Example) -> Label:
        """Return the label of a row. Raise ValueError."""
        try:
            return label_of(row.cells, self.source)
        except ValueError as wrong:
            is_empty = self.split == "test" and not any(cell.strip() for cell in row.cells)
            raise ValueError(f"{wrong}{', which other rows of this test file have' * is_empty}") from None


def examples_of(rows: Sequence[Example], source: Source, split: str) -> Examples:
    """Return the examples of valid rows of a split."""
    is_labelled = bool(rows) and rows[0].label is not None
    is_weighted = bool(rows) and bool(source.weight) and split == "train"
    return Examples(
        ids=tuple(row.id for row in rows),
        first=tuple(row.sentences[0] for row in rows),
        second=tuple(row.sentences[1] for row in rows) if len(source.columns) == 2 else (),
        labels=np.array([row.label for row in rows], dtype=np.float64) if is_labelled else None,
        weights=np.array([number(row.weight) for row in rows]) if is_weighted else None)


def found_labels(source: Source, files: Sequence[DataFile]) -> tuple[str, ...]:
    """Return the different labels in files: numbers by size, else by the alphabet. Raise DataError, StorageError."""
    found: set[str] = set()
    columns = source.label_columns
    for file in files:
        with reported("read", file.path):
            rows = open_rows(file.path, str(file.path), columns, lists=columns, header=source.header,
                             quotes=source.quotes)
            at = rows.index(columns[0])
            cells = {row.cells[at].strip() for row in rows.rows() if not row.problem}
        found.update(*(listed(cell, ()) if source.kind == "multilabel" else [cell] for cell in cells))
    numbers = {label: number(label) for label in found - {""}}
    return tuple(sorted(numbers, key=lambda label: (True, 0.0, label) if math.isnan(numbers[label])
                        else (False, numbers[label], label)))
