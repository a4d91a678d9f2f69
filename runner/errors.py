"""Every error that a user can meet, and the one way in which it is printed.

    MtrunError                exit code
    ├── UsageError            2   a command line that cannot be meant
    ├── SpecError             2   a spec, with the place of each problem
    ├── DataError             2   a data file, with its file and line
    ├── CheckpointError       2   pretrained weights that are missing, damaged or of another shape
    ├── TrainingError         1   a leaf that could not be trained
    │   └── Diverged          1   a loss, gradient or weight that is not finite
    ├── StorageError          1   a write or read that the machine refused
    ├── RegistryError         3   a finished run that is damaged
    └── Stopped             130   a signal; what was done can be resumed (143 for SIGTERM)

Anything else that reaches the command line is a bug: exit code 4, with a line that says so.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

SHOWN = 20
"""How many problems one error prints; the rest are counted."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


def clean(text: str) -> str:
    """Replace control, zero-width and bidirectional-override characters in text about to be printed."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\t", " "))


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the known word that is spelt most like `word`, or an empty string where none is near."""
    found = difflib.get_close_matches(word.lower(), by_lower := {k.lower(): k for k in known}, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else ""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a hint that names the nearest known spelling, or an empty string."""
    near = nearest(word, known)
    return f"did you mean `{near}`?" if near else ""


@dataclass(frozen=True, order=True)
class Place:
    """A stretch of one line of a file; line and column count from 1, width in characters."""

    file: str
    line: int = 0
    column: int = 1
    width: int = field(default=1, compare=False)
    text: str = field(default="", compare=False)
    """The source line, shown with a caret under it; empty where there is none to show."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: what, where, what was expected and what to do."""

    message: str
    place: Place | None = None
    notes: tuple[str, ...] = ()
    hint: str = ""

    def render(self) -> str:
        """Return the problem as the lines that a person reads, without a trailing newline."""
        margin = " " * len(str(self.place.line if self.place else 0))
        lines = [f"error: {self.message}", *self._source(margin)]
        lines += [f"{margin} = {note}" for note in self.notes]
        lines += ["", f"hint: {self.hint}"] if self.hint else []
        return "\n".join(clean(line) for line in lines)

    def _source(self, margin: str) -> list[str]:
        """Return the arrow to the place and, where the line is known, the line with a caret under it."""
        place = self.place
        if place is None:
            return []
        if not place.line:
            return [f"{margin}--> {place.file}"]
        arrow = f"{margin}--> {place.file}:{place.line}:{place.column}"
        if not place.text:
            return [arrow]
        caret = "^" * max(1, min(place.width, len(place.text) - place.column + 1))
        return [arrow, f"{margin} |", f"{place.line} | {place.text}", f"{margin} | {' ' * (place.column - 1)}{caret}"]


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
