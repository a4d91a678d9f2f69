"""Parse TOML with limits on size, and with the line and column of every key and value.

tomli decides what is valid and what the values are. Before it, one quick pass (`screen`) rejects text that would make
it slow; after it, a scanner that relies on valid syntax (`document`) reads the text again and records the places. Any
file gives a table or a SpecError.
"""

from __future__ import annotations

import math
import os
import re
import stat
from bisect import bisect_right
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import tomli

from ..errors import Place, Problem, SpecError, did_you_mean
from .toml_errors import STRING, broken

_BYTES = 1 << 20  # of a file

_LEVELS = 32  # of tables and arrays inside one another

_MARKS = 20_000  # brackets, dots, commas and equals signs in a file: they bound time and memory

_DIGITS = 300  # of a number: Python is slow to convert more, or refuses them without a place

_PROBLEMS = 1000  # after which no more are looked for

_MARK = re.compile(rf"""
    {STRING} | (?: \#[^\n]*+ \s*+ )++
  | (?P<number> (?<![\w.+-]) [+-]? [0-9] [\w.+-]{{{_DIGITS},}}+ )
  | (?P<mark> [\[\]{{}}.,=] )
""", re.X)

_GAP = re.compile(r"(?: [ \t\n,]++ | \#[^\n]*+ )*+", re.X)

_KEY = re.compile(r"""( "(?: [^"\\]++ | \\. )*+" | '[^']*+' | [A-Za-z0-9_-]++ ) [ \t]*+ (\.?) [ \t]*+""", re.X)

_SCALAR = re.compile(rf"{STRING} | [^,\]}}\#\n]* [^,\]}}\#\n\t ]", re.X)

_NOT_TEXT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_TOO_DEEP = f"nested over {_LEVELS} levels deep"


class Table(dict[str, Any]):
    """TOML table with the places of its keys and values.

    `place` is where the table begins: its [header], its {inline} value, the key part that implies it (`a` in `a.b = 1`
    or in `[a.b]`), or line 1 of the file for the root. `keys_at[key]` is the place of a key (of a table with a header,
    the header's last key part), `values_at[key]` that of its value (of a table its `place`, of an array of tables its
    first header); a value over many lines is placed by its first. Nested tables are `Table`s, arrays are `Array`s.
    Merging moves a sub-table with its places; `hides` is where the `type` of a table stands that another replaced.
    """

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place
        self.hides: Place | None = None
        self.keys_at: dict[str, Place] = {}
        self.values_at: dict[str, Place] = {}

    def put(self, key: str, value: Any, key_at: Place, value_at: Place) -> None:
        """Set a key together with its places."""
        self[key] = value
        self.keys_at[key], self.values_at[key] = key_at, value_at


class Array(list[Any]):
    """TOML array with the place of each item (`items_at[i]`)."""

    def __init__(self) -> None:
        super().__init__()
        self.items_at: list[Place] = []

    def put(self, item: Any, item_at: Place) -> None:
        """Append an item together with its place."""
        self.append(item)
        self.items_at.append(item_at)


def read(path: Path, shown_as: str = "") -> Table:
    """Read a TOML file, called `shown_as` in errors. Raise SpecError with the place of each problem."""
    shown = shown_as or str(path)
    try:  # opening never waits for a fifo
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise SpecError(Problem("cannot read: not a regular file", Place(shown)))
            data = file.read(_BYTES + 1)
    except (OSError, ValueError) as error:
        raise SpecError(_unreadable(path, shown, error)) from None
    return parse(data.decode(errors="surrogateescape"), shown)


def parse(text: str, shown_as: str) -> Table:
    """Parse TOML text of a file called `shown_as` in errors. Raise SpecError with the place of each problem."""
    scanner = _Scanner(text, shown_as)
    scanner.screen()
    try:
        values = tomli.loads(scanner.text)
    except tomli.TOMLDecodeError as error:
        wrong = broken(scanner.text, error.msg, error.pos)
        scanner.stop(f"not valid TOML: {wrong.message}", scanner.place(wrong.start, wrong.end), wrong.hint)
    return scanner.document(values)


def _unreadable(path: Path, shown: str, error: OSError | ValueError) -> Problem:
    """Return the problem of an unreadable file; of a missing one with the most similar name in its folder."""
    names: list[str] = []
    if isinstance(error, FileNotFoundError):
        with suppress(OSError):
            names = os.listdir(path.parent)[:10_000]
    why = getattr(error, "strerror", None) or str(error)
    return Problem(f"cannot read: {why.lower()}", Place(shown), hint=did_you_mean(path.name, names))


def _value_problem(value: Any) -> str:
    """Return why a single value is not allowed, or an empty string."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"is {value}, where a finite number was expected"
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return "does not fit into 64 bits"
    if isinstance(value, str) and (bad := _CONTROL.search(value)):
        return f"holds the control character U+{ord(bad[0]):04X}"
    return ""


class _Scanner:
    """Scanner of a text: cursor `at`, nesting depth `level`, starts of lines, and problems so far."""

    def __init__(self, text: str, file: str) -> None:
        if len(text.encode(errors="replace")) > _BYTES:
            raise SpecError(Problem(f"over {_BYTES >> 20} MiB long, which no spec is", Place(file)))
        self.text, self.file = text.removeprefix("\ufeff").replace("\r\n", "\n"), file
        self.lines = self.text.encode(errors="replace").decode().split("\n")
        self.starts = [0, *(end.end() for end in re.finditer("\n", self.text))]
        self.problems: list[Problem] = []
        self.at = self.level = 0

    def place(self, start: int, end: int) -> Place:
        """Return the place of text[start:end], limited to its first line."""
        line = bisect_right(self.starts, start)
        text, column = self.lines[line - 1], start - self.starts[line - 1] + 1
        width = max(1, min(end - start, len(text) - column + 1))
        return Place(self.file, line, column, width, text)

    def note(self, message: str, place: Place) -> None:
        """Record a problem; raise SpecError once there are very many."""
        self.problems.append(Problem(message, place))
        if len(self.problems) >= _PROBLEMS:
            raise SpecError(*self.problems)

    def stop(self, message: str, place: Place, hint: str = "") -> NoReturn:
        """Raise SpecError with all recorded problems and a last one."""
        raise SpecError(*self.problems, Problem(message, place, hint=hint))

    def screen(self) -> None:
        """Make the text safe for tomli, with all offsets kept: no control characters, no excessive numbers or depth."""
        for match in _NOT_TEXT.finditer(self.text):
            code, place = ord(match[0]), self.place(*match.span())
            if code >= 0xD800:  # a byte as decoding with `surrogateescape` leaves it
                self.stop(f"the byte 0x{code & 0xFF:02x} is not valid UTF-8", place, "save the file as UTF-8")
            self.note(f"control character U+{code:04X}", place)
        self.text = _NOT_TEXT.sub(" ", self.text)
        marks = level = dots = 0
        for match in _MARK.finditer(self.text):
            start, end = match.span()
            if match["number"]:
                self.note(f"a number of {end - start} characters does not fit into 64 bits", self.place(start, end))
                self.text = self.text[:start] + "9".ljust(end - start) + self.text[end:]
            elif mark := match["mark"]:
                marks += 1
                dots = dots + 1 if mark == "." else 0
                level += (mark in "[{") - (mark in "]}")
                if level > _LEVELS or dots > _LEVELS + 1:  # one more: the dot of a number may precede a key
                    self.stop(_TOO_DEEP, self.place(start, end))
                if marks > _MARKS:
                    self.stop(f"over {_MARKS} brackets, dots, commas and = in one file", self.place(start, end))

    def document(self, values: dict[str, Any]) -> Table:
        """Return the root table: tomli's `values` with places. Raise SpecError with all problems."""
        root = Table(self.place(0, len(self.text)))
        table, here = root, values
        while sign := self._skip():
            if sign == "[":
                table, here = self._header(root, values)
            else:
                self._pair(table, here)
        if self.problems:
            raise SpecError(*self.problems)
        return root

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str]:
        """Match a pattern at the cursor, where valid syntax guarantees it, and step over the match."""
        match = pattern.match(self.text, self.at)
        assert match, f"tomli and the scanner disagree at offset {self.at}"
        self.at = match.end()
        return match

    def _skip(self, count: int = 0) -> str:
        """Step over `count` characters, then whitespace, comments and commas; return the next character."""
        self.at += count
        self._match(_GAP)
        return self.text[self.at : self.at + 1]

    def _enter(self, levels: int, place: Place) -> None:
        """Increase the nesting depth; raise SpecError where it is too deep."""
        self.level += levels
        if self.level > _LEVELS:
            self.stop(_TOO_DEEP, place)

    def _header(self, root: Table, values: dict[str, Any]) -> tuple[Table, Any]:
        """Read a header, [a.b] or [[a.b]]; return the table that it opens and tomli's values for it."""
        start, brackets = self.at, 2 if self.text.startswith("[[", self.at) else 1
        self._skip(brackets)
        *above, (name, key_at) = parts = self._key()
        self.at, self.level = self.at + brackets, 0
        place = self.place(start, self.at)
        outer, here = self._descend(root, values, above)
        if brackets == 1:  # the table may exist already, implied by a header above
            outer.put(name, outer.get(name, Table(place)), key_at, place)
            outer[name].place = place
        else:
            if name not in outer:
                outer.put(name, Array(), key_at, place)
            outer[name].put(Table(place), place)
        return self._descend(outer, here, parts[-1:])

    def _descend(self, table: Table, here: Any, parts: list[tuple[str, Place]]) -> tuple[Table, Any]:
        """Follow the parts of a key, creating implied tables; return the innermost and tomli's values for it."""
        for name, place in parts:
            if name not in table:
                table.put(name, Table(place), place, place)
            inner, here = table[name], here[name]
            self._enter(1 + isinstance(inner, Array), place)
            if isinstance(inner, Array):
                inner, here = inner[-1], here[len(inner) - 1]
            table = inner
        return table, here

    def _key(self) -> list[tuple[str, Place]]:
        """Read a dotted key and the blanks after it; return the name and place of each part."""
        parts, more = [], "."
        while more:
            match = self._match(_KEY)
            name, more, place = match[1], match[2], self.place(*match.span(1))
            if name[0] in "\"'":
                name = tomli.loads(f"key = {name}")["key"]
            if not name.isprintable():
                self.note("a key holds a character that does not print", place)
            parts.append((name, place))
        return parts

    def _pair(self, table: Table, here: Any) -> None:
        """Read `key = value` into a table."""
        *above, (name, key_at) = self._key()
        self._skip(1)
        table, here = self._descend(table, here, above)
        value, value_at = self._value(here[name], name)
        table.put(name, value, key_at, value_at)
        self.level -= len(above)

    def _value(self, given: Any, name: str) -> tuple[Any, Place]:
        """Read the value of the key `name`; return tomli's value, containers with places, and its place."""
        start, value = self.at, given
        if isinstance(given, dict | list):
            value = self._container(given, name)
        else:
            self._match(_SCALAR)
        place = self.place(start, self.at)
        if isinstance(value, Table):
            value.place = place
        elif wrong := _value_problem(value):
            self.note(f"`{name:.60}` {wrong}", place)
        return value, place

    def _container(self, given: Any, name: str) -> Table | Array:
        """Read {a = 1, b.c = 2} or [1, 2]."""
        opening = self.place(self.at, self.at + 1)
        value = Table(opening) if isinstance(given, dict) else Array()
        self._enter(1, opening)
        self.at += 1
        while self._skip() not in "]}":
            if isinstance(value, Table):
                self._pair(value, given)
            else:
                value.put(*self._value(given[len(value)], name))
        self.at, self.level = self.at + 1, self.level - 1
        return value
