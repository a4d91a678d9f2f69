"""User-facing errors with their exit codes, and how they are printed.

    MtrunError                exit code
    ├── UsageError            2   an invalid command line
    ├── SpecError             2   an invalid spec, with the place of each problem
    ├── DataError             2   an invalid data file, with file and line
    ├── CheckpointError       2   pretrained weights that are missing, damaged or of another shape
    ├── TrainingError         1   a leaf that could not be trained
    │   ├── Diverged          1   a loss, gradient or weight that is not finite
    │   └── RankLost          1   another rank of the leaf has ended
    ├── StorageError          1   a failed read or write
    ├── RegistryError         3   a finished run that is damaged
    └── Stopped             130   stopped by a signal and resumable (143 for SIGTERM)

Any other exception that reaches the command line is a bug: exit code 4 and a message that says so.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field

SHOWN = 20
"""Maximum number of problems that one error prints; the others are counted."""

WIDE = 160
"""Maximum number of characters of a source line that are shown, centred on the caret."""

LONG = 500
"""Maximum number of characters of a message, note or hint that are shown."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


def clean(text: str) -> str:
    """Replace control, zero-width and bidirectional-override characters in text to be printed."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\t", " "))


def near(word: str, known: Iterable[str]) -> list[str]:
    """Return the known words with the smallest edit distance to `word`, best first; empty where none is near.

    Near is a distance of at most a third of the letters, but at least one; else a word that is a prefix of the other.
    """
    ranked = [(rank, name) for name in dict.fromkeys(known) if (rank := _likeness(word.lower(), name.lower()))]
    least = min((rank[0] for rank, _ in ranked), default=0)
    return [name for _, name in sorted(pair for pair in ranked if pair[0][0] == least)]


def _likeness(word: str, other: str) -> tuple[int, bool, int] | None:
    """Return a distance to sort by: edits, different first letter, different letters; None where not near."""
    most = max(1, len(word) // 3)
    if abs(len(word) - len(other)) <= most and len(set(word) ^ set(other)) <= 2 * most:
        edits = _edits(word, other)
        if edits <= most:
            return edits, word[:1] != other[:1], sum(abs(word.count(c) - other.count(c)) for c in {*word, *other})
    if min(len(word), len(other)) > 2 and (word.startswith(other) or other.startswith(word)):
        return most + 1, False, abs(len(word) - len(other))
    return None


def _edits(a: str, b: str) -> int:
    """Optimal string alignment distance: insertions, deletions, substitutions and swaps of neighbours."""
    above: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        above, last, row = row, above, [i]
        for j, y in enumerate(b, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (x != y)))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                row[j] = min(row[j], last[j - 2] + 1)
    return row[-1]


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the known word nearest to `word`, or an empty string where none is near."""
    return next(iter(near(word, known)), "")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a hint with the nearest known words, at most three, or an empty string."""
    words = " or ".join(f"`{name}`" for name in near(word, known)[:3])
    return f"did you mean {words}?" if words else ""


@dataclass(frozen=True, order=True)
class Place:
    """Position in a file; line and column are 1-based, width is in characters.

    A place on the command line has no line number, but a text.
    """

    file: str
    line: int = 0
    column: int = 1
    width: int = field(default=1, compare=False)
    text: str = field(default="", compare=False)
    """The source line, shown with carets under it; empty where it is not shown."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file

    def excerpt(self) -> tuple[str, str]:
        """Return the shown part of the source line and the line of carets below it."""
        start = max(0, self.column - 1 - WIDE // 2) if len(self.text) > WIDE else 0
        shown, column = self.text[start : start + WIDE], self.column - 1 - start
        carets = "^" * max(1, _cells(shown[column : column + self.width]))
        before, after = "…" * (start > 0), "…" * (start + WIDE < len(self.text))
        return before + shown + after, " " * (len(before) + _cells(shown[:column])) + carets


def _cells(text: str) -> int:
    """Return the width of a text in terminal columns."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else not unicodedata.combining(c) for c in text)


@dataclass(frozen=True)
class Problem:
    """One problem: message, place, notes and a hint."""

    message: str
    place: Place | None = None
    notes: tuple[str, ...] = ()
    hint: str = ""

    def render(self) -> str:
        """Return the problem as printed, without a trailing newline."""
        number = str(self.place.line or "") if self.place else ""
        margin = " " * max(1, len(number))
        lines = [_truncated(f"error: {self.message}"), *self._source(margin, number)]
        lines += [_truncated(f"{margin} = {note}") for note in self.notes]
        lines += ["", _truncated(f"hint: {self.hint}")] if self.hint else []
        return "\n".join(clean(line) for line in lines)

    def _source(self, margin: str, number: str) -> list[str]:
        """Return the lines that show the place and, where it is known, the source line with carets."""
        place = self.place
        if place is None:
            return []
        arrow = f"{margin}--> {place.file}" + (f":{place.line}:{place.column}" if place.line else "")
        if not place.text:
            return [arrow]
        shown, carets = place.excerpt()
        return [arrow, f"{margin} |", f"{number or margin} | {shown}", f"{margin} | {carets}"]


def _truncated(line: str) -> str:
    """Truncate a line after `LONG` characters."""
    return line if len(line) <= LONG else f"{line[:LONG]}…"


class MtrunError(Exception):
    """Base class of user-facing errors, with one or more problems."""

    exit_code = 1

    def __init__(self, *problems: Problem | str) -> None:
        self.problems = tuple(Problem(p) if isinstance(p, str) else p for p in problems)
        super().__init__("; ".join(p.message for p in self.problems))

    def render(self) -> str:
        """Return the problems as printed, sorted by place, at most `SHOWN` of them."""
        placed = sorted(dict.fromkeys(self.problems), key=lambda p: p.place or Place(""))
        shown = [p.render() for p in placed[:SHOWN]]
        if len(placed) > SHOWN:
            shown.append(f"error: and {len(placed) - SHOWN} more problems")
        return "\n\n".join(shown)


class UsageError(MtrunError):
    """An invalid command line."""

    exit_code = 2


class SpecError(MtrunError):
    """Problems in specs; raised before any training starts."""

    exit_code = 2


class DataError(MtrunError):
    """Problems in data files; raised before any training starts."""

    exit_code = 2


class CheckpointError(MtrunError):
    """Pretrained weights that are missing, damaged or of another shape."""

    exit_code = 2


class TrainingError(MtrunError):
    """A leaf whose training failed; other leaves continue."""


class Diverged(TrainingError):
    """A loss, gradient or weight that is not finite."""


class RankLost(TrainingError):
    """Another rank of the same leaf has ended."""


class StorageError(MtrunError):
    """A failed read or write, with path and reason."""


class RegistryError(MtrunError):
    """A finished run that is damaged."""

    exit_code = 3


class Stopped(MtrunError):
    """Stopped by a signal; training can be resumed."""

    def __init__(self, signal_number: int = 2) -> None:
        self.exit_code = 128 + signal_number
        super().__init__("stopped; run the same command again to go on from here")
