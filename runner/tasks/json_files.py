"""Reader of JSON: objects line by line, a list of objects, or columns by name as `pandas.DataFrame.to_json` writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from typing import Any, BinaryIO

from ..errors import DataError, Place, Problem
from .table_files import Line


def json_values(stream: BinaryIO, name: str) -> Iterator[tuple[int, Any]]:
    """Yield the values of a stream, each with its line. Raise DataError, with file and line, for what is not JSON.

    Values of JSON lines are yielded as they are read. An object that is the only value may hold the rows: in its only
    list, or as columns.
    """
    every = _lines(stream, name)
    first = next((line for line in every if line.text.strip()), None)
    if first is None:
        return
    value = _object(first.text)
    if value is None:
        yield from _Document("\n".join([first.text, *(line.text for line in every)]), first.number, name).values()
        return
    rest: Iterator[Line] = (line for line in every if line.text.strip())
    if any(isinstance(item, dict | list) for item in value.values()):  # else it is a row, whatever follows
        second = next(rest, None)
        if second is None:
            yield from _rows_of(value, first.number, name)
            return
        rest = chain([second], rest)
    yield first.number, value
    for line in rest:
        yield line.number, _Document(line.text, line.number, name).whole()


def _lines(stream: BinaryIO, name: str) -> Iterator[Line]:
    """Yield lines of any length: pandas writes a whole table into one."""
    with stream:
        for number, data in enumerate(stream, 1):
            try:
                yield Line(number, data.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n"))
            except UnicodeDecodeError as error:
                raise DataError(Problem(f"not UTF-8 at byte {error.start + 1} of the line", Place(name, number),
                                        hint="save the file in UTF-8")) from None


def _object(text: str) -> dict[str, Any] | None:
    """Return the object that a text is, or None."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _rows_of(value: dict[str, Any], line: int, name: str) -> Iterator[tuple[int, Any]]:
    """Yield the rows that an object holds in its only list, or as columns; else the object."""
    lists = [item for item in value.values() if isinstance(item, list)]
    if len(lists) == 1 and lists[0] and all(isinstance(item, dict) for item in lists[0]):
        yield from ((line, item) for item in lists[0])
    elif value and all(isinstance(column, dict | list) for column in value.values()):
        columns = {key: column if isinstance(column, dict) else dict(enumerate(column))
                   for key, column in value.items()}
        rows = next(iter(columns.values())).keys()
        if any(column.keys() != rows for column in columns.values()):
            raise DataError(Problem("the columns of this table have different rows", Place(name, line)))
        for row in rows:
            yield line, {key: column[row] for key, column in columns.items()}
    else:
        yield line, value


class _Document:
    """Text of JSON values that go on over several lines, and how far it has been read."""

    def __init__(self, text: str, line: int, name: str) -> None:
        self._text, self._at, self._name = text, 0, name
        self._line, self._counted = line, 0

    def values(self) -> Iterator[tuple[int, Any]]:
        """Yield the values one after another; of a list, its items."""
        is_first = True
        while self._next():
            if self._next() == "[":
                yield from self._items()
            else:
                line, value = self._value()
                if is_first and not self._next() and isinstance(value, dict):
                    yield from _rows_of(value, line, self._name)
                else:
                    yield line, value
            is_first = False

    def whole(self) -> Any:
        """Return the only value. Raise DataError if there is more."""
        _, value = self._value()
        if self._next():
            raise self._error("more than one value in a line", self._at)
        return value

    def _items(self) -> Iterator[tuple[int, Any]]:
        """Yield the items of the list that begins here."""
        self._at += 1
        while self._next() != "]":
            yield self._value()
            if self._next() == ",":
                self._at += 1
            elif self._next() != "]":
                raise self._error("a list that is not closed" if not self._next() else "expecting `,` or `]`", self._at)
        self._at += 1

    def _next(self) -> str:
        """Return the next character that is not blank, or an empty string at the end."""
        while self._text[self._at : self._at + 1] in (" ", "\t", "\r", "\n"):
            self._at += 1
        return self._text[self._at : self._at + 1]

    def _value(self) -> tuple[int, Any]:
        """Return the next value and its line."""
        self._next()
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        try:
            value, self._at = json.JSONDecoder().raw_decode(self._text, self._at)
        except json.JSONDecodeError as error:
            raise self._error(error.msg, error.pos) from None
        except (ValueError, RecursionError) as error:
            raise self._error(str(error), self._at) from None
        return self._line, value

    def _error(self, message: str, at: int) -> DataError:
        line = self._line + self._text.count("\n", self._counted, at)
        return DataError(Problem(f"not JSON: {message}", Place(self._name, line)))
