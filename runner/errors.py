"""Every error that a user can meet, and the one way in which it is printed.

    MtrunError                exit code
    ├── UsageError            2   a command line that cannot be meant
    ├── SpecError             2   a spec, with the place of each problem
    ├── DataError             2   a data file, with its file and line
    ├── CheckpointError       2   pretrained weights that are missing, damaged or of another shape
    ├── TrainingError         1   a leaf that could not be trained
    │   ├── Diverged          1   a loss, gradient or weight that is not finite
    │   └── RankLost          1   another process that trains the leaf is gone
    ├── StorageError          1   a write or read that the machine refused
    ├── RegistryError         3   a finished run that is damaged
    └── Stopped             130   a signal; what was done can be resumed (143 for SIGTERM)

Anything else that reaches the command line is a bug: exit code 4, with a line that says so.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field

SHOWN = 20
"""How many problems one error prints; the rest are counted."""

WIDE = 160
"""How many characters of a source line are shown; of a longer one, those around the caret."""

LONG = 500
"""How many characters of a message, note or hint are shown."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


def clean(text: str) -> str:
    """Replace control, zero-width and bidirectional-override characters in text about to be printed."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\t", " "))


def near(word: str, known: Iterable[str]) -> list[str]:
    """Return the known words that are spelt most like `word`, likeliest first; none where none is near.

    Near is a third of the letters added, lost, changed or swapped, but at least one; else one that begins the other.
    """
    ranked = [(rank, name) for name in dict.fromkeys(known) if (rank := _likeness(word.lower(), name.lower()))]
    least = min((rank[0] for rank, _ in ranked), default=0)
    return [name for _, name in sorted(pair for pair in ranked if pair[0][0] == least)]


def _likeness(word: str, other: str) -> tuple[int, bool, int] | None:
    """Return how unlike two words are: edits, another first letter, other letters; None where they are not near."""
    most = max(1, len(word) // 3)
    if abs(len(word) - len(other)) <= most and len(set(word) ^ set(other)) <= 2 * most:
        edits = _edits(word, other)
        if edits <= most:
            return edits, word[:1] != other[:1], sum(abs(word.count(c) - other.count(c)) for c in {*word, *other})
    if min(len(word), len(other)) > 2 and (word.startswith(other) or other.startswith(word)):
        return most + 1, False, abs(len(word) - len(other))
    return None


def _edits(a: str, b: str) -> int:
    """Return how many letters are added, lost, changed or swapped with their neighbour (optimal string alignment)."""
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
    """Return the known word that is spelt most like `word`, or an empty string where none is near."""
    return next(iter(near(word, known)), "")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a hint that names the nearest known spelling, up to three that are equally near, or an empty string."""
    found = " or ".join(f"`{name}`" for name in near(word, known)[:3])
    return f"did you mean {found}?" if found else ""


@dataclass(frozen=True, order=True)
class Place:
    """A stretch of one line of a file; line and column count from 1, width in characters.

    What was given on the command line has no line number, but a text.
    """

    file: str
    line: int = 0
    column: int = 1
    width: int = field(default=1, compare=False)
    text: str = field(default="", compare=False)
    """The source line, shown with a caret under it; empty where there is none to show."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file

    def drawn(self) -> tuple[str, str]:
        """Return the part of the line that is shown and, as long, what is drawn under it."""
        start = max(0, self.column - 1 - WIDE // 2) if len(self.text) > WIDE else 0
        shown, column = self.text[start : start + WIDE], self.column - 1 - start
        carets = "^" * max(1, _cells(shown[column : column + self.width]))
        before, after = "…" * (start > 0), "…" * (start + WIDE < len(self.text))
        return before + shown + after, " " * (len(before) + _cells(shown[:column])) + carets


def _cells(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else not unicodedata.combining(c) for c in text)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: what, where, what was expected and what to do."""

    message: str
    place: Place | None = None
    notes: tuple[str, ...] = ()
    hint: str = ""

    def render(self) -> str:
        """Return the problem as the lines that a person reads, without a trailing newline."""
        number = str(self.place.line or "") if self.place else ""
        margin = " " * max(1, len(number))
        lines = [_cut(f"error: {self.message}"), *self._source(margin, number)]
        lines += [_cut(f"{margin} = {note}") for note in self.notes]
        lines += ["", _cut(f"hint: {self.hint}")] if self.hint else []
        return "\n".join(clean(line) for line in lines)

    def _source(self, margin: str, number: str) -> list[str]:
        """Return the arrow to the place and, where the line is known, the line with a caret under it."""
        place = self.place
        if place is None:
            return []
        arrow = f"{margin}--> {place.file}" + (f":{place.line}:{place.column}" if place.line else "")
        if not place.text:
            return [arrow]
        shown, under = place.drawn()
        return [arrow, f"{margin} |", f"{number or margin} | {shown}", f"{margin} | {under}"]


def _cut(line: str) -> str:
    """Return a line, its end left out where it is longer than anyone reads."""
    return line if len(line) <= LONG else f"{line[:LONG]}…"


class MtrunError(Exception):
    """Something that a user can mend; carries one or more problems."""

    exit_code = 1

    def __init__(self, *problems: Problem | str) -> None:
        self.problems = tuple(Problem(p) if isinstance(p, str) else p for p in problems)
        super().__init__("; ".join(p.message for p in self.problems))

    def render(self) -> str:
        """Return all problems in the order of their places, at most `SHOWN` of them."""
        placed = sorted(dict.fromkeys(self.problems), key=lambda p: p.place or Place(""))
        shown = [p.render() for p in placed[:SHOWN]]
        if len(placed) > SHOWN:
            shown.append(f"error: and {len(placed) - SHOWN} more problems")
        return "\n\n".join(shown)


class UsageError(MtrunError):
    """A command line that cannot be meant."""

    exit_code = 2


class SpecError(MtrunError):
    """One or more problems in specs; nothing was started."""

    exit_code = 2


class DataError(MtrunError):
    """One or more problems in data files; nothing was started."""

    exit_code = 2


class CheckpointError(MtrunError):
    """Pretrained weights that are missing, damaged or of another shape."""

    exit_code = 2


class TrainingError(MtrunError):
    """A leaf that could not be trained; other leaves go on."""


class Diverged(TrainingError):
    """A loss, gradient or weight that is not finite."""


class RankLost(TrainingError):
    """Another process that trains the same leaf is gone."""


class StorageError(MtrunError):
    """A read or write that the machine refused, with path and reason."""


class RegistryError(MtrunError):
    """A finished run that is damaged."""

    exit_code = 3


class Stopped(MtrunError):
    """A signal asked to stop; what was done so far can be resumed."""

    def __init__(self, signal_number: int = 2) -> None:
        self.exit_code = 128 + signal_number
        super().__init__("stopped; run the same command again to go on from here")
