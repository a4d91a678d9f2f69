"""Reader of delimited tables and of text lines, for data, inputs and predictions.

- Encoding: UTF-8, with or without a byte order mark, and UTF-16 with one. Only `\\n` and `\\r\\n` end lines.
- Separator: that of the header, a tab, a comma or a semicolon.
- Quotes: a cell in double quotes, `""` for a quote inside, as RFC 4180 and pandas write them. A quote that is not
  closed in its line starts a multi-line cell only if the following lines are not rows by themselves; otherwise it is
  an ordinary character. So a stray quote does not swallow rows.
- No header: where the caller has `names` for the columns, and none of these is in the first line.
- Cells: every row has as many as the header. If all rows have one more, it is a pandas index without a name, or the
  empty cell behind a trailing separator.
- Blank lines and rows of empty cells are skipped.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import BinaryIO, NamedTuple

from ..errors import DataError, Place, Problem, did_you_mean

LONGEST = 1 << 20
"""Maximum number of characters of a line, and of a multi-line row."""

SEPARATORS = {"\t": "tabs", ",": "commas", ";": "semicolons"}

_QUOTED = re.compile(r'"((?:[^"]|"")*)"')

_SIGNATURES = {
    b"version https://git-lfs": ("a Git LFS pointer, not the file itself", "`git lfs pull` fetches the file"),
    b"\x1f\x8b": ("compressed with gzip", "decompress it: gunzip FILE"),
    b"PK\x03\x04": ("a zip archive, such as a spreadsheet", "save it as CSV in UTF-8"),
    b"PAR1": ("a Parquet file", "save it as CSV in UTF-8: pandas.read_parquet(FILE).to_csv(…, index=False)"),
    b"{\\rtf": ("a document of a word processor", "save it as plain text in UTF-8"),
    b"\xd0\xcf\x11\xe0": ("a spreadsheet of an old format", "save it as CSV in UTF-8"),
}
"""First bytes of non-text files -> what they are, hint."""


class Line(NamedTuple):
    """A line of a file without its line ending; numbers start at 1."""

    number: int
    text: str


class Row(NamedTuple):
    """A row of a table: its first line, its cells in the order of the header, and a problem with them if any."""

    line: int
    cells: list[str]
    problem: Problem | None = None


def lines(stream: BinaryIO, name: str) -> Iterator[Line]:
    """Yield the lines of a stream, then close it. Raise DataError, with file and line, if it is not text."""
    with stream:
        start = stream.read(64)
        for signature, (what, hint) in _SIGNATURES.items():
            if start.startswith(signature):
                raise _error(name, 1 if "LFS" in what else 0, f"{name} is {what}", hint)
        joined = _Joined(start, stream)
        if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
            yield from _decoded(_utf8(joined, name), name)
        else:
            yield from _decoded(joined, name)


class _Joined(io.RawIOBase):
    """Stream of bytes already read, followed by the rest of another stream."""

    def __init__(self, start: bytes, rest: BinaryIO) -> None:
        self._start, self._rest = start, rest

    def readline(self, size: int | None = -1) -> bytes:
        """Return the next line with its line ending, or its first `size` bytes."""
        limit = LONGEST if size is None or size < 0 else size
        end = self._start.find(b"\n")
        if 0 <= end < limit:
            line, self._start = self._start[: end + 1], self._start[end + 1 :]
            return line
        start, self._start = self._start[:limit], self._start[limit:]
        return start + (self._rest.readline(limit - len(start)) if len(start) < limit else b"")

    def read(self, size: int = -1) -> bytes:
        """Return all remaining bytes."""
        start, self._start = self._start, b""
        return start + self._rest.read()


def _utf8(stream: _Joined, name: str) -> io.BytesIO:
    """Re-encode UTF-16 as UTF-8."""
    try:
        return io.BytesIO(stream.read().decode("utf-16").encode())
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise _error(name, 0, f"{name} begins as UTF-16 and goes on as something else: {error}",
                     "save it in UTF-8") from None


def _decoded(stream: _Joined | io.BytesIO, name: str) -> Iterator[Line]:
    number = 0
    while data := stream.readline(4 * LONGEST):
        number += 1
        if b"\0" in data:
            raise _error(name, number, "a byte 0 in a file of text",
                         "save the file in UTF-8" if data[1::2].count(0) + data[::2].count(0) > 1 else "")
        try:
            text = data.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise _error(name, number, f"not UTF-8 at byte {error.start + 1} of the line",
                         "save the file in UTF-8; Latin-1, for one, is read by: iconv -f latin1 -t utf8 FILE") from None
        if len(text) > LONGEST or not (data.endswith(b"\n") or len(data) < 4 * LONGEST):
            raise _error(name, number, f"a line of over {LONGEST:,} characters")
        yield Line(number, text.removesuffix("\n").removesuffix("\r"))


@dataclass
class Table:
    """A table being read: the header at once, rows one at a time, in bounded memory."""

    stream: BinaryIO
    name: str
    names: Sequence[str] = ()
    """Names of the columns of a table without a header line."""
    quotes: bool = True
    """Whether a cell may be in double quotes; else a quote is a character like any other."""
    header: list[str] = field(init=False)
    separator: str = field(init=False, default="\t")

    def __post_init__(self) -> None:
        self._lines = lines(self.stream, self.name)
        first = next((line for line in self._lines if line.text.strip()), Line(1, ""))
        self.line = first.number
        """Line of the header, or 0 where there is none."""
        bare = _QUOTED.sub("", first.text) if self.quotes else first.text
        self.separator = next((sign for sign in SEPARATORS if sign in bare), "\t")
        self.header = [cell.strip() for cell in self._split(first.text) or first.text.split(self.separator)]
        self._held: list[Line] = []
        if self.names and not {*self.names} & {*self.header}:
            self.header, self.line, self._held = list(self.names), 0, [first]

    def index(self, column: str) -> int:
        """Return the position of a column. Raise DataError if it is missing or repeated."""
        count = self.header.count(column)
        if count == 1:
            return self.header.index(column)
        if count:
            raise self.error(f"{count} columns are called `{column}`", self.line, "rename all but one of them")
        names = list(filter(None, self.header))
        raise self.error(f"{self.name} has no column `{column}`; it has {', '.join(names)}", self.line,
                         did_you_mean(column, names), f"its columns are separated by {SEPARATORS[self.separator]}")

    def rows(self) -> Iterator[Row]:
        """Yield the rows; those whose number of cells differs from the header's have a problem."""
        rows = self._rows()
        first = list(islice(rows, 3))
        surplus = bool(first) and self.line > 0 and all(len(row.cells) == len(self.header) + 1 for row in first)
        is_trailing = surplus and not any(row.cells[-1] for row in first)
        for row in chain(first, rows):
            cells = row.cells
            if surplus and len(cells) == len(self.header) + 1 and not (is_trailing and cells[-1]):
                cells = cells[:-1] if is_trailing else cells[1:]
            elif surplus or len(cells) != len(self.header):
                yield row._replace(problem=row.problem or self._wrong_count(row, surplus))
                continue
            yield row._replace(cells=cells)

    def _wrong_count(self, row: Row, surplus: bool) -> Problem:
        notes = [f"cells are separated by {SEPARATORS[self.separator]}"]
        if self.quotes and any(cell.startswith('"') for cell in row.cells):
            notes.append("a quote is opened in this row and not closed at the end of its cell")
        number, wanted = len(row.cells), len(self.header) + surplus
        others = "the rows before have" if surplus else "the header has"
        return Problem(f"row has {number} cell{'s' * (number != 1)}, where {others} {wanted}",
                       Place(self.name, row.line), tuple(notes))

    def error(self, message: str, line: int, hint: str = "", *notes: str) -> DataError:
        """Build a DataError at a line of this file."""
        return DataError(Problem(message, Place(self.name, line), notes, hint))

    def _next(self) -> Line | None:
        return self._held.pop(0) if self._held else next(self._lines, None)

    def _rows(self) -> Iterator[Row]:
        """Yield non-blank rows with any number of cells."""
        while line := self._next():
            if not line.text.strip(self.separator + " \t\r"):
                continue
            cells = self._split(line.text)
            yield self._open(line) if cells is None else Row(line.number, cells)

    def _split(self, text: str) -> list[str] | None:
        """Split a line into cells; None if a quoted cell is not closed."""
        cells, at, separator = [], 0, self.separator
        if '"' not in text or not self.quotes:
            return text.split(separator)
        while at <= len(text):
            end = text.find(separator, at)
            end = len(text) if end < 0 else end
            if text.startswith('"', at):
                quoted = _QUOTED.match(text, at)
                if not quoted:
                    return None
                if quoted.end() == len(text) or text.startswith(separator, quoted.end()):
                    cells.append(quoted[1].replace('""', '"'))
                    at = quoted.end() + 1
                    continue
            cells.append(text[at:end])
            at = end + 1
        return cells

    def _open(self, line: Line) -> Row:
        """Read a row with an unclosed quote: as several lines if none of these is a row; else the quote is text."""
        counts = (len(self.header), len(self.header) + 1)
        text, lookahead = line.text, list[Line]()
        is_row = len(text.split(self.separator)) in counts
        while len(text) <= LONGEST and (more := self._next()):
            lookahead.append(more)
            alone = self._split(more.text)
            is_closing = not is_row and more.text.count('"') % 2  # neither line is a row without the other
            if len(self.header) > 1 and alone is not None and len(alone) in counts and not is_closing:
                break
            text += "\n" + more.text
            cells = self._split(text)
            if cells is not None and len(cells) in counts:
                return Row(line.number, cells, self._ambiguous(line, more) if len(self.header) == 1 else None)
            if cells is not None:
                break
        self._held[:0] = lookahead
        return Row(line.number, line.text.split(self.separator))

    def _ambiguous(self, first: Line, last: Line) -> Problem:
        """Build the problem for a single-column table, where every line could be a row."""
        return Problem(f"the quote that opens here is closed in line {last.number}: is that one text or several?",
                       Place(self.name, first.number),
                       hint='write a quote inside a text as "" and put the text into quotes, or use JSON lines')


def _error(name: str, line: int, message: str, hint: str = "") -> DataError:
    return DataError(Problem(message, Place(name, line), hint=hint))

