"""Predictions files of other programs: CSV, or safetensors as `runner/predictions.py` has it.

A CSV file has a header and one row for each example of each task that it predicts, in any order:

    split,task,id,score_0,score_1,score_2,score_3,score_4
    dev,sentiment,dev-0,-1.2,0.3,2.5,0.1,-2.2
    dev,similarity,dev-0,3.8,,,,

A classification has k logits, a binary task one (yes above 0), a regression one number; cells that a task does not need
are empty. Where no task needs more than one score the column is `score`. Other columns are not looked at; tabs may
stand in place of commas. What a file says of a split of a task it says of all of its examples.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import DataError, Place, Problem, RegistryError, did_you_mean
from ..files import reported
from ..lazy import deferred
from .data import Data
from .predictions import Output, Predictions

with deferred("numpy"):
    import numpy as np

ENDINGS = (".csv", ".tsv", ".safetensors")
"""How the names of such files end."""

KEYS = ("split", "task", "id")

LARGEST = 3.4028234e38
"""Largest number of 32 bits."""

PROBLEMS = 200
"""After how many problems no more are looked for."""


def is_score_file(name: str) -> bool:
    """Tell whether a name is that of a predictions file."""
    return name.lower().endswith(ENDINGS)


def read(path: Path, shown_as: str, data: Data) -> Predictions:
    """Return the Predictions in a file, in the suite's order; raise DataError with every problem, or StorageError."""
    with reported("read", path):
        content = path.read_bytes()
    if path.suffix.lower() == ".safetensors":
        return _stored(content, shown_as, data)
    return _Reader(shown_as, data).read(content)


def _stored(content: bytes, shown_as: str, data: Data) -> Predictions:
    """Return what a safetensors file holds. Raise DataError."""
    outputs: dict[str, dict[str, Output]] = {}
    try:
        held = Predictions.from_bytes(content, shown_as)
        for split, by_task in held.outputs.items():
            for task in by_task:
                if split not in data.splits.get(task, {}):
                    raise DataError(_foreign(task, split, data, Place(shown_as)))
                scores = held.find(data, split, task, shown_as)
                assert scores is not None
                outputs.setdefault(split, {})[task] = Output(data.splits[task][split].ids, scores)
    except RegistryError as error:
        raise DataError(*(Problem(p.message, Place(shown_as), p.notes) for p in error.problems)) from None
    return Predictions(outputs)


def _foreign(task: str, split: str, data: Data, at: Place) -> Problem:
    """Return the problem of a task or a split that the suite lacks."""
    if task in data.tasks:
        known = sorted(data.splits[task])
        return Problem(f"unknown split `{split}` of `{task}`", at, (f"the suite has: {', '.join(known)}",),
                       did_you_mean(split, known))
    return Problem(f"unknown task `{task}`", at, (f"the suite has: {', '.join(data.tasks)}",),
                   did_you_mean(task, data.tasks))


@dataclass
class _Reader:
    """Reads one CSV file and collects its problems."""

    shown_as: str
    data: Data
    problems: list[Problem] = field(default_factory=list)
    lines: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict)
    """(split, task) -> the line of each id."""
    scores: dict[tuple[str, str], dict[str, list[float]]] = field(default_factory=dict)
    _positions: dict[tuple[str, str], frozenset[str]] = field(default_factory=dict)

    def read(self, content: bytes) -> Predictions:
        """Return the file's Predictions. Raise DataError."""
        try:
            text = content.decode("utf-8-sig")
            rows = list(self._rows(text))
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(Problem(f"this is not a CSV file in UTF-8: {error}", Place(self.shown_as))) from None
        columns = self._columns(rows[0][1] if rows else [])
        for line, cells in rows[1:]:
            if len(self.problems) < PROBLEMS:
                self._take(line, cells, columns)
        if not self.problems:
            self._check_whole()
        if self.problems:
            raise DataError(*self.problems)
        return Predictions(self._outputs())

    def _rows(self, text: str) -> Iterator[tuple[int, list[str]]]:
        """Yield line number and cells of each row that is not empty."""
        reader = csv.reader(io.StringIO(text), delimiter="\t" if "\t" in text.partition("\n")[0] else ",", strict=True)
        yield from ((reader.line_num, [cell.strip() for cell in cells]) for cells in reader if any(cells))

    def _say(self, message: str, line: int, *notes: str, hint: str = "") -> None:
        self.problems.append(Problem(message, Place(self.shown_as, line), notes, hint))

    def _columns(self, header: Sequence[str]) -> list[int]:
        """Return where split, task, id and the scores stand. Raise DataError where one is not there."""
        found = [name for name in header if name.startswith("score")]
        named = found if found == ["score"] else [f"score_{i}" for i in range(max(1, len(found)))]
        for name in [*KEYS, *named]:
            if header.count(name) != 1:
                many = "more than one column" if name in header else "no column"
                self._say(f"{many} `{name}`", 1, f"a predictions file has: {', '.join(KEYS)}, and score or score_0, …",
                          hint=did_you_mean(name, [other for other in header if other not in KEYS]))
        if self.problems:
            raise DataError(*self.problems)
        return [header.index(name) for name in [*KEYS, *named]]

    def _take(self, line: int, cells: Sequence[str], columns: Sequence[int]) -> None:
        """Take one row, or say what is wrong with it."""
        if len(cells) <= max(columns):
            return self._say(f"a row of {len(cells)} cells, fewer than the header has", line)
        split, task, name, *rest = (cells[column] for column in columns)
        if split not in self.data.splits.get(task, {}):
            self.problems.append(_foreign(task, split, self.data, Place(self.shown_as, line)))
            return None
        key, given, wanted = (split, task), [cell for cell in rest if cell], self.data.tasks[task].outputs
        if key not in self._positions:
            self._positions[key] = frozenset(self.data.splits[task][split].ids)
        first = self.lines.setdefault(key, {}).setdefault(name, line)
        if name not in self._positions[key]:
            self._say(f"the id `{name}` is not in the suite's {split} split of `{task}`", line)
        elif first != line:
            self._say(f"the id `{name}` stands twice in {split} of `{task}`", line, f"first in line {first}")
        elif len(given) != wanted or any(rest[wanted:]):
            self._say(f"expected {wanted} score{'s' * (wanted > 1)} for `{task}`, not {len(given)}", line)
        else:
            self.scores.setdefault(key, {})[name] = [self._number(cell, line) for cell in given]
        return None

    def _number(self, cell: str, line: int) -> float:
        """Return the number in a cell; say it where it is none."""
        try:
            number = float(cell)
        except ValueError:
            number = float("nan")
        if not abs(number) <= LARGEST:
            self._say(f"`{cell}` is not a number that can be kept", line)
        return number

    def _check_whole(self) -> None:
        """Say which examples are missing."""
        for (split, task), scores in self.scores.items():
            lacking = [name for name in self.data.splits[task][split].ids if name not in scores]
            if lacking:
                self._say(f"{len(lacking)} of the suite's {split} examples of `{task}` are missing, such as "
                          f"`{lacking[0]}`", 0, hint="a file says of all examples of a split, or of none")
        if not self.scores:
            self._say("it holds no predictions", 0)

    def _outputs(self) -> dict[str, dict[str, Output]]:
        """Return the outputs, in the suite's order."""
        outputs: dict[str, dict[str, Output]] = {}
        for (split, task), scores in self.scores.items():
            ids = self.data.splits[task][split].ids
            outputs.setdefault(split, {})[task] = Output(ids, np.array([scores[name] for name in ids], np.float32))
        return outputs
