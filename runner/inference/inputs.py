"""Questions: sentences and pairs that a person asks about, from text lines, CSV, TSV or JSON lines, as a stream."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import DataError, Place, Problem, UsageError, did_you_mean
from ..files import reported

PAIRED = "|||"
"""What may stand between the two sentences of a pair in a line of text, besides a tab."""

FIRST, SECOND = ("sentence", "sentence1"), "sentence2"
"""Names of the columns, or keys, of a question's sentences."""

SPLIT = "test"
"""The split under which questions, as examples, and what is said of them stand: one that nothing is chosen on."""

PORTION = 1024
"""Most questions that are answered at a time."""

CHARACTERS = 1 << 20
"""Most characters of a line, and about how many are answered at a time."""


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
    return {"csv": "csv", "tsv": "csv", "jsonl": "jsonl", "ndjson": "jsonl"}.get(ending, "lines")


def of_file(name: str, form: str | None = None) -> Iterator[Input]:
    """Return the questions of a file, or of standard input for `-`, in a form or in that which its name tells."""
    if name == "-":
        return read(sys.stdin.buffer, "standard input", form or "lines")
    with reported("read", Path(name)):
        stream = open(name, "rb")  # noqa: SIM115 - whoever reads the questions to their end closes it
    return read(stream, name, form or form_of(name))


def read(stream: BinaryIO, name: str, form: str) -> Iterator[Input]:
    """Yield the questions of a stream as they come. Raise DataError, with file and line, for what is none.

    `form` is lines, jsonl or csv, whose cells are separated by tabs where its header has one, as the course's files.
    """
    lines = _Lines(stream, name)
    return {"lines": _of_lines, "csv": _of_table, "jsonl": _of_json}[form](lines)


def portions(questions: Iterable[Input]) -> Iterator[list[Input]]:
    """Yield questions in portions of bounded size, in their order."""
    portion: list[Input] = []
    characters = 0
    for question in questions:
        portion.append(question)
        characters += question.size
        if len(portion) == PORTION or characters > CHARACTERS:
            yield portion
            portion, characters = [], 0
    if portion:
        yield portion


@dataclass
class _Lines:
    """The lines of a stream, decoded one by one; `number` is that of the last one, from 1."""

    stream: BinaryIO
    name: str
    number: int = field(default=0)

    def __iter__(self) -> Iterator[str]:
        with self.stream:
            while line := self.stream.readline(CHARACTERS + 1):
                self.number += 1
                if len(line) > CHARACTERS:
                    raise self.error(f"a line of over {CHARACTERS:,} bytes")
                try:
                    yield line.decode("utf-8-sig" if self.number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise self.error(f"not UTF-8 at byte {error.start + 1} of the line") from None

    def error(self, message: str, hint: str = "") -> DataError:
        """Return an error about the last line."""
        return DataError(Problem(message, Place(self.name, self.number), hint=hint))

    def question(self, values: dict[str, Any], id: str) -> Input:
        """Return the question that named values ask. Raise DataError."""
        first = next((key for key in FIRST if values.get(key) is not None), None)
        if first is None:
            raise self.error(f"no `{FIRST[0]}` or `{FIRST[1]}`", did_you_mean(FIRST[0], [str(key) for key in values]))
        given = [values[first], *([values[SECOND]] if values.get(SECOND) is not None else ())]
        task = values.get("task") or None
        if not all(isinstance(text, str) for text in (*given, task or "")):
            raise self.error("a sentence and a task must be text")
        return Input(str(values.get("id", id)), tuple(given), (task,) if task else ())


def _of_lines(lines: _Lines) -> Iterator[Input]:
    """Yield a question for each line that is not blank; its id is the line's number."""
    for line in lines:
        if line.strip():
            try:
                yield Input(str(lines.number), split(line.strip("\r\n")))
            except UsageError as error:
                raise lines.error(str(error)) from None


def _of_table(lines: _Lines) -> Iterator[Input]:
    """Yield a question for each row of a table whose header names `sentence`, or `sentence1` and `sentence2`."""
    numbered = iter(lines)
    head = next(numbered, "")
    delimiter = "\t" if "\t" in head else ","
    header = next(csv.reader([head], delimiter=delimiter), [])
    if not {*FIRST} & {*header}:
        raise lines.error(f"the header has no column `{FIRST[0]}` or `{FIRST[1]}`", did_you_mean(FIRST[0], header))
    try:
        for number, row in enumerate(csv.reader(numbered, delimiter=delimiter), 1):
            names = ["", *header] if len(row) == len(header) + 1 else header  # a pandas index has no name
            if len(row) != len(names):
                raise lines.error(f"{len(row)} columns, but the header has {len(header)}")
            yield lines.question(dict(zip(names, row, strict=True)), str(number))
    except csv.Error as error:
        raise lines.error(f"not a row of a table: {error}") from None


def _of_json(lines: _Lines) -> Iterator[Input]:
    """Yield a question for each line: an object with `sentence`, or `sentence1` and `sentence2`, perhaps `id`."""
    for line in lines:
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise lines.error(f"not JSON: {error}") from None
        if not isinstance(values, dict):
            raise lines.error("not a JSON object")
        yield lines.question(values, str(lines.number))
