"""Questions: sentences and pairs that a person asks about, from text lines, CSV, TSV or JSON lines, as a stream."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import DataError, Place, Problem, UsageError, did_you_mean
from ..files import reported
from ..tasks.table_files import Table, lines

PAIRED = "|||"
"""What may stand between the two sentences of a pair in a line of text, besides a tab."""

FIRST, SECOND = ("sentence", "sentence1"), "sentence2"
"""Names of the columns, or keys, of a question's sentences."""

SPLIT = "test"
"""The split under which questions, as examples, and what is said of them stand: one that nothing is chosen on."""

PORTION = 1024
"""Most questions that are answered at a time."""

CHARACTERS = 1 << 20
"""About how many characters are answered at a time."""


@dataclass(frozen=True)
class Input:
    """A sentence or a pair; `tasks` are those that are asked for, none where all that fit are."""

    id: str
    sentences: tuple[str, ...]
    tasks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Replace what no file can hold: halves of characters, as JSON and command lines may give them."""
        whole = tuple(text.encode(errors="replace").decode() for text in self.sentences)
        object.__setattr__(self, "sentences", whole)
        object.__setattr__(self, "id", self.id.encode(errors="replace").decode())

    @property
    def size(self) -> int:
        """Number of its characters."""
        return sum(map(len, self.sentences))


def of_texts(texts: Sequence[str], pairs: Sequence[tuple[str, str]]) -> Iterator[Input]:
    """Yield the questions of a command line, numbered from 1."""
    sentences = [*(split(text) for text in texts), *pairs]
    for number, one in enumerate(sentences, 1):
        yield Input(str(number), one)


def split(line: str) -> tuple[str, ...]:
    """Return the sentence of a line of text, or the two that a tab or `|||` separates."""
    mark = "\t" if "\t" in line else PAIRED
    parts = tuple(part.strip() for part in line.split(mark))
    if len(parts) > 2:
        raise UsageError(f"a line has {len(parts)} sentences, but no task takes more than 2: {line[:80]}")
    return parts


def form_of(name: str) -> str:
    """Return the form that a file's name tells."""
    ending = name.rpartition(".")[2].lower()
    return {"csv": "csv", "tsv": "csv", "jsonl": "jsonl", "ndjson": "jsonl", "json": "jsonl"}.get(ending, "lines")


def of_file(name: str, form: str | None = None) -> Iterator[Input]:
    """Return the questions of a file, or of standard input for `-`, in a form or in that which its name tells."""
    if name == "-":
        return read(sys.stdin.buffer, "standard input", form or "lines")
    with reported("read", Path(name)):
        stream = open(name, "rb")  # noqa: SIM115 - whoever reads the questions to their end closes it
    return read(stream, name, form or form_of(name))


def read(stream: BinaryIO, name: str, form: str) -> Iterator[Input]:
    """Yield the questions of a stream as they come. Raise DataError, with file and line, for what is none.

    `form` is lines, csv (any table with a header) or jsonl (JSON lines, or one list).
    """
    reader = _Reader(name)
    return {"lines": reader.of_lines, "csv": reader.of_table, "jsonl": reader.of_json}[form](stream)


def portions(questions: Iterable[Input]) -> Iterator[list[Input]]:
    """Yield questions in portions of bounded size, in their order, those before an error ahead of it."""
    portion: list[Input] = []
    characters, error = 0, None
    try:
        for question in questions:
            portion.append(question)
            characters += question.size
            if len(portion) == PORTION or characters > CHARACTERS:
                yield portion
                portion, characters = [], 0
    except DataError as bad:
        error = bad
    if portion:
        yield portion
    if error:
        raise error


@dataclass
class _Reader:
    """Makes inputs of what stands at a place of a file."""

    name: str

    def error(self, message: str, line: int, hint: str = "") -> DataError:
        """Return an error about a line."""
        return DataError(Problem(message, Place(self.name, line), hint=hint))

    def input(self, values: dict[str, Any], line: int, id: str) -> Input:
        """Return the input that named values stand for. Raise DataError."""
        first = next((key for key in FIRST if values.get(key) is not None), None)
        if first is None:
            raise self.error(f"no `{FIRST[0]}` or `{FIRST[1]}`", line, did_you_mean(FIRST[0], map(str, values)))
        given = [values[first], *([values[SECOND]] if values.get(SECOND) is not None else ())]
        task = values.get("task") or None
        if not all(isinstance(text, str) for text in (*given, task or "")):
            raise self.error("a sentence and a task must be text", line)
        return Input(str(values.get("id", id)), tuple(given), (task,) if task else ())

    def of_lines(self, stream: BinaryIO) -> Iterator[Input]:
        """Yield an input for each line that is not blank; its id is the line's number."""
        for line in lines(stream, self.name):
            if line.text.strip():
                try:
                    yield Input(str(line.number), split(line.text))
                except UsageError as error:
                    raise self.error(str(error), line.number) from None

    def of_table(self, stream: BinaryIO) -> Iterator[Input]:
        """Yield an input for each row of a table whose header names `sentence`, or `sentence1` and `sentence2`."""
        table = Table(stream, self.name)
        if not {*FIRST} & {*table.header}:
            raise self.error(f"the header has no column `{FIRST[0]}` or `{FIRST[1]}`", table.line,
                             did_you_mean(FIRST[0], table.header))
        columns = {name: table.index(name) for name in (*FIRST, SECOND, "id", "task") if name in table.header}
        for number, row in enumerate(table.rows(), 1):
            if row.problem:
                raise DataError(row.problem)
            yield self.input({name: row.cells[at] for name, at in columns.items()}, row.line, str(number))

    def of_json(self, stream: BinaryIO) -> Iterator[Input]:
        """Yield an input for each line, or each item of one list: an object with `sentence` or `sentence1`."""
        numbered = (line for line in lines(stream, self.name) if line.text.strip())
        first = next(numbered, None)
        if first and first.text.lstrip().startswith("["):
            values = self._json("\n".join([first.text, *(line.text for line in numbered)]), first.number)
            for number, value in enumerate(values, 1):
                yield self._of_object(value, first.number, str(number), f"item {number} of the list is ")
            return
        for line in chain([first] if first else [], numbered):
            yield self._of_object(self._json(line.text, line.number), line.number, str(line.number), "")

    def _json(self, text: str, line: int) -> Any:
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise self.error(f"not JSON: {error.msg}", line + error.lineno - 1) from None
        except (ValueError, RecursionError) as error:
            raise self.error(f"not JSON: {error}", line) from None

    def _of_object(self, value: Any, line: int, id: str, which: str) -> Input:
        if not isinstance(value, dict):
            raise self.error(f"{which}not a JSON object", line)
        return self.input(value, line, id)
