"""Read inputs (sentences and pairs to predict) as a stream from text lines, tables or JSON lines."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import DataError, Place, Problem, UsageError, did_you_mean
from ..files import reported
from ..tasks.json_files import json_values
from ..tasks.row_files import decompressed, rows_of
from ..tasks.table_files import lines

PAIRED = "|||"
"""Separator of the two sentences of a pair in a line of text, besides a tab."""

FIRST, SECOND = ("sentence", "sentence1"), "sentence2"
"""Column names, or JSON keys, of the sentences of an input."""

SPLIT = "test"
"""Split name of inputs as examples and of their Predictions: a split on which nothing is chosen."""

TABLES = ("csv", "tsv", "parquet", "feather", "arrow")
"""Extensions of the names of tables."""

PORTION = 1024
"""Maximal number of inputs in a portion."""

CHARACTERS = 1 << 20
"""Approximate maximal number of characters in a portion."""


@dataclass(frozen=True)
class Input:
    """A sentence or a pair; `tasks` are the requested tasks, empty for all that fit."""

    id: str
    sentences: tuple[str, ...]
    tasks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Replace lone surrogates, which JSON and command lines can contain and UTF-8 cannot."""
        whole = tuple(text.encode(errors="replace").decode() for text in self.sentences)
        object.__setattr__(self, "sentences", whole)
        object.__setattr__(self, "id", self.id.encode(errors="replace").decode())

    @property
    def size(self) -> int:
        """Number of characters."""
        return sum(map(len, self.sentences))


def of_texts(texts: Sequence[str], pairs: Sequence[tuple[str, str]]) -> Iterator[Input]:
    """Yield the inputs of a command line, with ids from 1."""
    sentences = [*(split(text) for text in texts), *pairs]
    for number, item in enumerate(sentences, 1):
        yield Input(str(number), item)


def split(line: str) -> tuple[str, ...]:
    """Split a line of text at a tab or `|||` into one or two sentences. Raise UsageError for more."""
    mark = "\t" if "\t" in line else PAIRED
    parts = tuple(part.strip() for part in line.split(mark))
    if len(parts) > 2:
        raise UsageError(f"a line has {len(parts)} sentences, but no task takes more than 2: {line[:80]}")
    return parts


def form_of(name: str) -> str:
    """Return the format of a file by the extensions of its name."""
    endings = name.lower().split(".")[1:]
    if endings and endings[-1] in ("gz", "bz2", "xz", "zst", "zip"):
        del endings[-1]
    known = {"jsonl": "jsonl", "ndjson": "jsonl", "json": "jsonl"}
    return known.get(endings[-1], "csv" if endings[-1] in TABLES else "lines") if endings else "lines"


def of_file(name: str, form: str | None = None) -> Iterator[Input]:
    """Return the inputs in a file, or in standard input for `-`; `form` defaults to that of the name."""
    if name == "-":
        return read(sys.stdin.buffer, "standard input", form or "lines")
    with reported("read", Path(name)):
        stream = open(name, "rb")  # noqa: SIM115 - closed when the inputs are read to their end
    return read(stream, name, form or form_of(name))


def read(stream: BinaryIO, name: str, form: str) -> Iterator[Input]:
    """Yield the inputs of a stream as they are read. Raise DataError with file and line for an invalid input.

    `form` is lines, csv (any table with a header, Parquet or Arrow) or jsonl (JSON lines, or one list); the stream may
    be compressed.
    """
    reader = _Reader(name)
    return {"lines": reader.of_lines, "csv": reader.of_table, "jsonl": reader.of_json}[form](decompressed(stream, name))


def portions(inputs: Iterable[Input]) -> Iterator[list[Input]]:
    """Group inputs, in order, into portions of bounded size; yield those before an error before raising it."""
    portion: list[Input] = []
    characters, error = 0, None
    try:
        for item in inputs:
            portion.append(item)
            characters += item.size
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
    """Parses one file into inputs."""

    name: str

    def error(self, message: str, line: int, hint: str = "") -> DataError:
        """Return a DataError about a line."""
        return DataError(Problem(message, Place(self.name, line), hint=hint))

    def input(self, values: dict[str, Any], line: int, id: str) -> Input:
        """Return the input with some values by column name. Raise DataError."""
        first = next((key for key in FIRST if values.get(key) is not None), None)
        if first is None:
            raise self.error(f"no `{FIRST[0]}` or `{FIRST[1]}`", line, did_you_mean(FIRST[0], map(str, values)))
        texts = [values[first], *([values[SECOND]] if values.get(SECOND) is not None else ())]
        task = values.get("task") or None
        if not all(isinstance(text, str) for text in (*texts, task or "")):
            raise self.error("a sentence and a task must be text", line)
        return Input(str(values.get("id", id)), tuple(texts), (task,) if task else ())

    def of_lines(self, stream: io.BufferedReader) -> Iterator[Input]:
        """Yield an input for each line that is not blank; its id is the line number."""
        for line in lines(stream, self.name):
            if line.text.strip():
                try:
                    yield Input(str(line.number), split(line.text))
                except UsageError as error:
                    raise self.error(str(error), line.number) from None

    def of_table(self, stream: io.BufferedReader) -> Iterator[Input]:
        """Yield an input for each row of a table with a column `sentence`, or `sentence1` and `sentence2`."""
        table = rows_of(stream, self.name, (*FIRST, SECOND, "id", "task"))
        if not {*FIRST} & {*table.header}:
            raise self.error(f"the header has no column `{FIRST[0]}` or `{FIRST[1]}`", table.line,
                             did_you_mean(FIRST[0], table.header))
        columns = {name: table.index(name) for name in (*FIRST, SECOND, "id", "task") if name in table.header}
        for number, row in enumerate(table.rows(), 1):
            if row.problem:
                raise DataError(row.problem)
            yield self.input({name: row.cells[at] for name, at in columns.items()}, row.line, str(number))

    def of_json(self, stream: io.BufferedReader) -> Iterator[Input]:
        """Yield an input for each object with `sentence` or `sentence1`, one per line or all in one list."""
        is_list = stream.peek(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"["
        for number, (line, value) in enumerate(json_values(stream, self.name), 1):
            which = f"item {number} of the list is " if is_list else ""
            yield self._of_object(value, line, str(number if is_list else line), which)

    def _of_object(self, value: Any, line: int, id: str, which: str) -> Input:
        if not isinstance(value, dict):
            raise self.error(f"{which}not a JSON object", line)
        return self.input(value, line, id)
