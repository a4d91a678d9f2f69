"""Import of predictions files of other programs: CSV, or safetensors as in `runner/tasks/predictions.py`.

A CSV file has a header and one row for each example of each task that it predicts, in any order:

    split,task,id,score_0,score_1,score_2,score_3,score_4
    dev,sentiment,dev-0,-1.2,0.3,2.5,0.1,-2.2
    dev,similarity,dev-0,3.8,,,,

A classification has k logits, a binary task one (class 1 above 0), a regression one number; cells that a task does not
need are empty. If no task needs more than one score, the column is `score`. Other columns are ignored; tabs or
semicolons may separate the cells. A file must cover all examples of each split and task that it contains.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError

from ..errors import DataError, Place, Problem, RegistryError, did_you_mean
from ..files import open_file, reported
from ..lazy import deferred
from .data import Data
from .predictions import Output, Predictions

with deferred("numpy", "safetensors.numpy"):
    import numpy as np
    import safetensors.numpy as tensor_file

ENDINGS = (".csv", ".tsv", ".safetensors")
"""Suffixes of predictions files."""

KEYS = ("split", "task", "id")

SCORE = re.compile(r"score(_\d+)?")
"""Names of score columns."""

LARGEST = 3.4028234e38
"""Largest finite float32."""

PROBLEMS = 200
"""Maximum number of reported problems."""


def is_score_file(name: str) -> bool:
    """Return whether a file name has the suffix of a predictions file."""
    return name.lower().endswith(ENDINGS)


def read(path: Path, shown_as: str, data: Data) -> Predictions:
    """Read the Predictions of a file in the suite's order; raise DataError with all problems, or StorageError."""
    with reported("read", path), open_file(path) as file:
        content = file.read()
    if path.suffix.lower() == ".safetensors":
        return _from_safetensors(content, shown_as, data)
    return _Reader(shown_as, data).read(content)


def _from_safetensors(content: bytes, shown_as: str, data: Data) -> Predictions:
    """Parse a safetensors file. Raise DataError."""
    outputs: dict[str, dict[str, Output]] = {}
    try:
        predictions = Predictions.from_bytes(_single_precision(content), shown_as)
        for split, by_task in predictions.outputs.items():
            for task in by_task:
                if split not in data.splits.get(task, {}):
                    raise DataError(_unknown(task, split, data, Place(shown_as)))
                scores = predictions.find(data, split, task, shown_as)
                assert scores is not None
                outputs.setdefault(split, {})[task] = Output(data.splits[task][split].ids, scores)
    except RegistryError as error:
        raise DataError(*(Problem(p.message.replace("is damaged", "cannot be used"), Place(shown_as), p.notes)
                          for p in error.problems)) from None
    return Predictions(outputs)


def _single_precision(content: bytes) -> bytes:
    """Convert float64 and float16 tensors of a safetensors file to float32; return other content unchanged."""
    try:
        tensors = tensor_file.load(content)
    except (SafetensorError, KeyError):
        return content
    wide = {name: array for name, array in tensors.items() if array.dtype in (np.float64, np.float16)}
    with np.errstate(over="ignore"):  # numbers beyond float32 are reported as infinite
        single = {name: np.ascontiguousarray(array, np.float32) for name, array in wide.items()}
    return tensor_file.save(tensors | single) if single else content


def probabilities(predictions: Predictions, data: Data) -> list[str]:
    """Return the tasks whose scores look like probabilities instead of logits.

    These are binary scores in [0, 1], which as logits would predict 1 throughout, and class scores that sum to 1.
    """
    tasks = []
    for name, task in data.tasks.items():
        arrays = [by_task[name].scores for by_task in predictions.outputs.values() if name in by_task]
        if arrays and task.kind != "regression":
            scores = np.concatenate(arrays)
            is_share = (scores >= 0).all() and (scores <= 1).all() and len(np.unique(scores)) > 1
            if is_share and (task.kind in ("binary", "multilabel") or np.allclose(scores.sum(axis=1), 1, atol=1e-3)):
                tasks.append(name)
    return tasks


def _unknown(task: str, split: str, data: Data, at: Place) -> Problem:
    """Build the problem for a task or split that the suite lacks."""
    if task in data.tasks:
        known = sorted(data.splits[task])
        return Problem(f"unknown split `{split}` of `{task}`", at, (f"the suite has: {', '.join(known)}",),
                       did_you_mean(split, known))
    return Problem(f"unknown task `{task}`", at, (f"the suite has: {', '.join(data.tasks)}",),
                   did_you_mean(task, data.tasks))


@dataclass
class _Reader:
    """Parser of one CSV file; collects problems."""

    shown_as: str
    data: Data
    problems: list[Problem] = field(default_factory=list)
    lines: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict)
    """(split, task) -> id -> line."""
    scores: dict[tuple[str, str], dict[str, list[float]]] = field(default_factory=dict)
    _ids: dict[tuple[str, str], frozenset[str]] = field(default_factory=dict)

    def read(self, content: bytes) -> Predictions:
        """Parse the file. Raise DataError."""
        from .table_files import Table  # here, since most plans read no such file

        table = Table(io.BytesIO(content), self.shown_as)
        columns = self._columns(table.header)
        for row in table.rows():
            if len(self.problems) >= PROBLEMS:
                break
            if row.problem:
                self.problems.append(row.problem)
            else:
                self._read_row(row.line, [cell.strip() for cell in row.cells], columns)
        if not self.problems:
            self._check_complete()
        if self.problems:
            raise DataError(*self.problems)
        return Predictions(self._outputs())

    def _report(self, message: str, line: int, *notes: str, hint: str = "") -> None:
        self.problems.append(Problem(message, Place(self.shown_as, line), notes, hint))

    def _columns(self, header: Sequence[str]) -> list[int]:
        """Return the positions of split, task, id and scores. Raise DataError if a column is missing or repeated."""
        present = [name for name in header if SCORE.fullmatch(name)]
        scores = ["score"] if present == ["score"] else [f"score_{i}" for i in range(max(1, len(present)))]
        for name in [*KEYS, *scores]:
            if header.count(name) != 1:
                many = "more than one column" if name in header else "no column"
                self._report(f"{many} `{name}`", 1,
                             f"a predictions file has: {', '.join(KEYS)}, and score or score_0, …",
                             hint=did_you_mean(name, [other for other in header if other not in KEYS]))
        if self.problems:
            raise DataError(*self.problems)
        return [header.index(name) for name in [*KEYS, *scores]]

    def _read_row(self, line: int, cells: Sequence[str], columns: Sequence[int]) -> None:
        """Store the scores of one row, or report its problem."""
        split, task, name, *rest = (cells[column] for column in columns)
        if split not in self.data.splits.get(task, {}):
            self.problems.append(_unknown(task, split, self.data, Place(self.shown_as, line)))
            return
        key, given, wanted = (split, task), [cell for cell in rest if cell], self.data.tasks[task].outputs
        if key not in self._ids:
            self._ids[key] = frozenset(self.data.splits[task][split].ids)
        first = self.lines.setdefault(key, {}).setdefault(name, line)
        if name not in self._ids[key]:
            self._report(f"the id `{name}` is not in the suite's {split} split of `{task}`", line)
        elif first != line:
            self._report(f"the id `{name}` stands twice in {split} of `{task}`", line, f"first in line {first}")
        elif len(given) != wanted or any(rest[wanted:]):
            self._report(f"expected {wanted} score{'s' * (wanted > 1)} for `{task}`, not {len(given)}", line)
        else:
            self.scores.setdefault(key, {})[name] = [self._number(cell, line) for cell in given]
        return

    def _number(self, cell: str, line: int) -> float:
        """Parse the number in a cell; report it if it is not finite in float32."""
        try:
            number = float(cell)
        except ValueError:
            number = float("nan")
        if not abs(number) <= LARGEST:
            self._report(f"`{cell}` is not a number that can be kept", line)
        return number

    def _check_complete(self) -> None:
        """Report missing examples."""
        for (split, task), scores in self.scores.items():
            lacking = [name for name in self.data.splits[task][split].ids if name not in scores]
            if lacking:
                self._report(f"{len(lacking)} of the suite's {split} examples of `{task}` are missing, such as "
                             f"`{lacking[0]}`", 0, hint="a file says of all examples of a split, or of none")
        if not self.scores:
            self._report("it holds no predictions", 0)

    def _outputs(self) -> dict[str, dict[str, Output]]:
        """Return the outputs, in the suite's order."""
        outputs: dict[str, dict[str, Output]] = {}
        for (split, task), scores in self.scores.items():
            ids = self.data.splits[task][split].ids
            outputs.setdefault(split, {})[task] = Output(ids, np.array([scores[name] for name in ids], np.float32))
        return outputs
