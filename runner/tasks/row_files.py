"""Reader of rows from the files that people have: delimited tables, JSON, Parquet and Arrow, compressed or not.

What a file is, its first bytes say, not its name. All values become text, as `pandas.DataFrame.to_csv` writes them: a
missing one is empty, true and false are `True` and `False`; nothing that is text is taken for missing ("NA", "null").
A list, where the caller allows it, is JSON.
"""

from __future__ import annotations

import ast
import bz2
import gzip
import io
import json
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from ..errors import DataError, Place, Problem, did_you_mean
from ..files import open_file
from .json_files import json_values
from .table_files import Row, Table

BATCH = 4096
"""Rows of a Parquet or Arrow file that are in memory at a time."""

ARROW = b"ARROW1\0\0"
STREAM = b"\xff\xff\xff\xff"
PARQUET = b"PAR1"
ZIP = (b"PK\x03\x04", b"PK\x05\x06")
ZSTANDARD = b"\x28\xb5\x2f\xfd"

COMPRESSED: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open,
}
"""First bytes -> what opens a compressed stream."""

INSTALL = "pip install 'mtrun[data]'"


class Rows(Protocol):
    """Rows of a file: the names of the columns at once, cells one row at a time."""

    name: str
    header: list[str]
    line: int
    """Line of the header, or 0 where a file has none."""

    def index(self, column: str) -> int:
        """Return the position of a column. Raise DataError if it is missing or repeated."""

    def rows(self) -> Iterator[Row]:
        """Yield the rows, with cells in the order of the header; a row that cannot be read has a problem."""


def open_rows(path: Path, name: str, wanted: Sequence[str] = (), *, lists: Collection[str] = (),
              header: Sequence[str] = (), quotes: bool = True) -> Rows:
    """Open a file of rows, as `rows_of` does; `header` and `quotes` are a table's. Raise OSError, DataError."""
    return rows_of(decompressed(open_file(path), name), name, wanted, lists=lists, header=header, quotes=quotes)


def rows_of(stream: io.BufferedReader, name: str, wanted: Sequence[str] = (), *, lists: Collection[str] = (),
            header: Sequence[str] = (), quotes: bool = True) -> Rows:
    """Return the rows of a stream; `name` stands for it in messages. Raise DataError for what is no such file.

    Only the columns `wanted` are sure to be read. In others, a value that no cell can hold is empty, such as a list;
    in the columns `lists`, one of texts, numbers and truth values is JSON.
    """
    start = _peek(stream, 4096)
    if start.startswith((PARQUET, ARROW, STREAM)):
        return ArrowRows(stream, name, wanted, lists)
    if start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[") and not _is_header(start):
        return JsonRows(stream, name, wanted, lists)
    return Table(stream, name, header, quotes)


def decompressed(stream: BinaryIO, name: str) -> io.BufferedReader:
    """Return a stream, decompressed if it is compressed. Raise DataError."""
    raw = stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(cast("io.RawIOBase", stream))
    start = _peek(raw, 8)
    for signature, opener in COMPRESSED.items():
        if start.startswith(signature):
            return io.BufferedReader(_Decompressed(opener(cast("BinaryIO", raw)), name))
    if start.startswith(ZSTANDARD):
        return io.BufferedReader(_Decompressed(_arrow(name).CompressedInputStream(raw, "zstd"), name))
    if start.startswith(ZIP):
        whole = raw if raw.seekable() else io.BytesIO(raw.read())
        return io.BufferedReader(_Decompressed(_member(whole, name), name))
    return raw


class _Decompressed(io.RawIOBase):
    """Decompressed stream whose damage is a DataError."""

    def __init__(self, stream: Any, name: str) -> None:
        self._stream, self._name = stream, name

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; return the number of bytes."""
        try:
            data = self._stream.read(len(buffer))
        except (gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
            raise _damaged(self._name, error) from None
        except OSError as error:
            if error.errno is None:  # of pyarrow or bz2, not of the system
                raise _damaged(self._name, error) from None
            raise
        buffer[: len(data)] = data
        return len(data)


def _damaged(name: str, error: Exception) -> DataError:
    return DataError(Problem(f"{name} is compressed and damaged: {error}", Place(name), hint="copy or load it again"))


def _peek(stream: io.BufferedReader, size: int) -> bytes:
    """Return the first bytes of a stream without moving on."""
    return stream.peek(size)[:size]


def _member(raw: BinaryIO, name: str) -> Any:
    """Open the only file in a zip archive. Raise DataError if there are others."""
    try:
        archive = zipfile.ZipFile(raw)
        names = [info.filename for info in archive.infolist() if not info.is_dir()]
        if any(member.startswith("xl/") for member in names):
            raise DataError(Problem(f"{name} is a spreadsheet", Place(name), hint="save it as CSV in UTF-8"))
        members = [member for member in names if not member.startswith("__MACOSX/") and Path(member).name[0] != "."]
        if len(members) != 1:
            raise DataError(Problem(f"{name} holds {len(members)} files, not one", Place(name), tuple(members[:5]),
                                    "unpack it, and name the files one by one"))
        return archive.open(members[0])
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise _damaged(name, error) from None


def _arrow(name: str) -> Any:
    """Import pyarrow. Raise DataError if it is not installed."""
    try:
        import pyarrow
    except ImportError:
        raise DataError(Problem(f"{name} is read by the package pyarrow, which is not installed", Place(name),
                                hint=INSTALL)) from None
    return pyarrow


def _is_header(start: bytes) -> bool:
    """Tell whether a file that begins with a bracket is a table whose first column is called so, such as `[id]`."""
    first = start.split(b"\n", 1)[0]
    return first[:1] == b"[" and first.rstrip()[1:2].isalpha()


def _text(value: Any) -> str | None:
    """Return a value as the text of a cell, None for what no cell can hold, such as a list."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value if value.isascii() else value.encode(errors="replace").decode()  # lone surrogates of JSON
    if isinstance(value, bool | int | float):
        return repr(value)
    return None if isinstance(value, dict | list | bytes) else str(value)


def _list(values: Sequence[Any]) -> str | None:
    """Return a list as JSON, None for one with items that are neither text nor numbers."""
    items = [_text(value) if isinstance(value, str) else value for value in values]
    return json.dumps(items) if all(isinstance(item, str | bool | int | float) for item in items) else None


def as_list(cell: str) -> list[str] | None:
    """Return the items of a list that a cell holds, None for other text.

    It is JSON, or what pandas makes of it in a table: a list as Python shows it, or an array, which has no commas.
    """
    text = cell.strip()
    if not text.startswith("["):
        return None
    end = r"['\"]" if "'" in text or '"' in text else r"\d"
    with_commas = re.sub(rf"(?<={end})\s+(?={end})", ", ", text)
    for read, form in ((json.loads, text), (ast.literal_eval, text if "," in text else with_commas)):
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            if isinstance(found := read(form), list):
                return [str(item).strip() for item in found]
    return None


@dataclass
class _Named:
    """What files without a header line share: columns by name."""

    stream: io.BufferedReader
    name: str
    wanted: Sequence[str] = ()
    lists: Collection[str] = ()
    header: list[str] = field(init=False, default_factory=list)
    line: int = field(init=False, default=0)

    def index(self, column: str) -> int:
        """Return the position of a column. Raise DataError if it is missing or repeated."""
        count = self.header.count(column)
        if count == 1:
            return self.header.index(column)
        if count:
            raise DataError(Problem(f"{count} columns are called `{column}`", Place(self.name),
                                    hint="rename all but one of them"))
        names = f"; it has {', '.join(self.header)}" if self.header else ", and no others"
        raise DataError(Problem(f"{self.name} has no column `{column}`{names}", Place(self.name),
                                hint=did_you_mean(column, self.header)))

    def _row(self, number: int, values: Mapping[str, Any]) -> Row:
        """Return a row; one with a value that no cell can hold in a wanted column has a problem."""
        cells = [self._cell(column, values.get(column)) for column in self.header]
        odd = {column for column, cell in zip(self.header, cells, strict=True) if cell is None} & {*self.wanted}
        if odd:
            column = min(odd)
            kind = type(values[column]).__name__
            return Row(number, [], Problem(f"row has a {kind} in `{column}`, not text or a number",
                                           Place(self.name, number)))
        return Row(number, [cell or "" for cell in cells])

    def _cell(self, column: str, value: Any) -> str | None:
        return _list(value) if isinstance(value, list) and column in self.lists else _text(value)


class JsonRows(_Named):
    """Rows of JSON (`json_files`): the header has the keys of the first 1,000 objects; no others are read."""

    def __init__(self, stream: io.BufferedReader, name: str, wanted: Sequence[str] = (),
                 lists: Collection[str] = ()) -> None:
        super().__init__(stream, name, wanted, lists)
        values = json_values(stream, name)
        first = list(islice(values, 1000))
        self.header = list(dict.fromkeys(key for _, value in first if isinstance(value, dict) for key in value))
        self._values = chain(first, values)

    def rows(self) -> Iterator[Row]:
        """Yield the rows; what is no object has a problem."""
        for line, value in self._values:
            if isinstance(value, dict):
                yield self._row(line, value)
            else:
                yield Row(line, [], Problem("not a JSON object", Place(self.name, line)))


class ArrowRows(_Named):
    """Rows of a Parquet, Feather or Arrow file, as pandas, polars and Hugging Face datasets write them."""

    def __init__(self, stream: io.BufferedReader, name: str, wanted: Sequence[str] = (),
                 lists: Collection[str] = ()) -> None:
        super().__init__(stream, name, wanted, lists)
        arrow = _arrow(name)
        start = _peek(stream, 8)
        if start.startswith(PARQUET):
            import pyarrow.parquet

            file = self._read(lambda: pyarrow.parquet.ParquetFile(self._seekable()))
            self.header = list(file.schema_arrow.names)
            columns = [column for column in self.header if column in wanted] if wanted else None
            self._batches: Callable[[], Any] = lambda: file.iter_batches(BATCH, columns=columns)
        elif start.startswith(ARROW):
            table = self._read(lambda: arrow.ipc.open_file(self._seekable()))
            self.header = list(table.schema.names)
            self._batches = lambda: (table.get_batch(number) for number in range(table.num_record_batches))
        else:
            reader = self._read(lambda: arrow.ipc.open_stream(stream))
            self.header = list(reader.schema.names)
            self._batches = lambda: iter(reader)

    def rows(self) -> Iterator[Row]:
        """Yield the rows, numbered from 1; columns that are not wanted are empty."""
        number = 0
        batches = self._batches()
        while (batch := self._read(lambda: next(batches, None))) is not None:
            if self.wanted:
                batch = batch.select([column for column in batch.schema.names if column in self.wanted])
            for values in batch.to_pylist():
                number += 1
                yield self._row(number, values)

    def _seekable(self) -> Any:
        """Return the stream, or its content where it is compressed."""
        return self.stream if self.stream.seekable() else io.BytesIO(self.stream.read())

    def _read(self, read: Callable[[], Any]) -> Any:
        """Return what pyarrow reads. Raise DataError for damage, OSError where the file cannot be read."""
        import pyarrow

        try:
            return read()
        except (pyarrow.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # of the system
                raise
            raise DataError(Problem(f"{self.name} is damaged: {str(error).splitlines()[0]}",
                                    Place(self.name))) from None
