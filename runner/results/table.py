"""Tables of a leaderboard: columns, cells, marks for best and tied scores, notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..errors import UsageError, did_you_mean
from ..tasks.bootstrap import ALPHA, holm
from ..tasks.metrics import OVERALL, Scores
from .costs import spent
from .result import Column
from .rows import Row, rank
from .significance import Evidence

Published = Mapping[str, Scores]

NOTHING = "—"

SHOWN = 5
"""Maximal number of names in a note."""

FACTS = {"name": "name", "what": "what it is", "members": "members", "id": "id", "kind": "kind",
         "parameters": "parameters", "seconds": "training s", "inference": "s / 1,000 sentences", "seeds": "seeds"}
"""Keys of columns other than scores -> titles."""

OF_SCORES = {"": "", "interval": "95 %", "low": "from", "high": "to", "p": "p", "tied": "tied", "apparent": "apparent",
             "published": "published"}
"""Columns of each score, by key suffix (such as `overall.interval`) -> title suffix."""

APPARENT = "* chosen on dev, or made of what was, and not cross-fitted: its dev score is apparent"

HONEST = "dev is cross-fitted: what was chosen on dev is chosen on parts of it and scored on the rest (apparent: not)"

TIED = "≈ tied with the best of its column: McNemar's exact test or paired bootstrap, Holm's correction, 5 %"

INTERVAL = "95 %: bootstrap interval over the examples"

OVER_SEEDS = "±: standard deviation over the seeds"


@dataclass(frozen=True)
class Cell:
    """A value, its text for people, and its marks."""

    value: Any
    text: str
    is_best: bool = False
    is_tied: bool = False


@dataclass(frozen=True)
class Sheet:
    """A table independent of the output format."""

    facts: Mapping[str, str]
    """Profile, suite, sha256 and split."""
    columns: Mapping[str, str]
    """Key -> title."""
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()

    @property
    def title(self) -> str:
        """Heading of the table, one line."""
        facts = self.facts
        return f"{facts['profile']}: suite {facts['suite']}, content {facts['sha256'][:12]}, {facts['split']}"


@dataclass(frozen=True)
class Board:
    """The systems of one suite on one split, with costs, intervals and tests."""

    rows: Sequence[Row]
    tasks: Sequence[Column]
    split: str
    evidence: Evidence
    costs: Mapping[str, Mapping[str, Any]]
    published: Published = field(default_factory=dict)
    """Scores to show of the same nodes as published in the repository, by id."""
    published_on: Sequence[str] = ()
    """The machines on which the published scores were computed."""

    @cached_property
    def titles(self) -> dict[str, str]:
        """Titles of the score columns by key."""
        return {**{key: title for task in self.tasks for key, title in task.titles().items()}, OVERALL: OVERALL}

    @cached_property
    def signs(self) -> dict[str, int]:
        """Sign of each score column: -1 where a lower score is better."""
        return {**{key: metric.sign for task in self.tasks for key, metric in task.scored().items()}, OVERALL: 1}

    def title(self, key: str) -> str:
        """Return the title of a column."""
        column, part = self.parts(key)
        return f"{self.titles[column]} {OF_SCORES[part]}".rstrip() if column else FACTS[key]

    def parts(self, key: str) -> tuple[str, str]:
        """Split a key into score column and suffix; the column is empty if the key is not of a score."""
        column, _, part = (key, "", "") if key in self.titles else key.rpartition(".")
        return column, part

    def keys(self) -> list[str]:
        """Return the keys of all columns in display order."""
        scores = [f"{column}.{part}".rstrip(".") for column in self.titles for part in OF_SCORES]
        return ["name", "what", "members", "id", "kind", *scores, "parameters", "seconds", "inference", "seeds"]

    def value(self, row: Row, key: str) -> Any:
        """Return the value of a row in a column: text, a number, a pair of numbers, or None."""
        column, part = self.parts(key)
        if not column:
            return self._fact(row, key)
        score = row.score(self.split, column)
        if part in ("interval", "low", "high"):
            ends = self.evidence.interval(row.id, self.split, column, score)
            return ends and {"interval": ends, "low": ends[0], "high": ends[1]}[part]
        if part in ("p", "tied"):
            p = self.tests[column].get(row.id)
            return p if part == "p" or p is None else p > ALPHA
        if part == "published":
            return self.published.get(row.id, {}).get(self.split, {}).get(column)
        return row.scores.get(self.split, {}).get(column) if part == "apparent" else score

    def _fact(self, row: Row, key: str) -> Any:
        """Return the value of a column that is not a score."""
        if key in ("seconds", "inference"):
            cost = spent(self.costs, row.leaves, key)
            return None if cost is None else round(cost, 3)
        value = getattr(row, {"name": "names"}.get(key, key))
        return ", ".join(value) if isinstance(value, tuple) else value or None

    def best(self, column: str) -> Row | None:
        """Return the system with the best score in a column, or None."""
        return self._best.get(column)

    @cached_property
    def _best(self) -> dict[str, Row]:
        """The system with the best score by score column."""
        systems = [row for row in self.rows if row.id]
        best = {column: min(systems, key=lambda row: rank(row, self.split, column, self.signs[column]), default=None)
                for column in self.titles}
        return {column: row for column, row in best.items() if row and row.score(self.split, column) is not None}

    @property
    def is_honest(self) -> bool:
        """Whether some shown score differs from the score of the node fitted on all of dev."""
        return any(row.shown.get(self.split) != row.scores.get(self.split) for row in self.rows)

    @property
    def is_published(self) -> bool:
        """Whether some shown system has a published score."""
        return any(self.value(row, f"{OVERALL}.published") is not None for row in self.rows)

    @cached_property
    def tests(self) -> dict[str, dict[str, float]]:
        """Column -> id -> p-value against the best of the column, Holm-corrected; the best itself has none."""
        return {column: self._tests(column) for column in self.titles}

    def _tests(self, column: str) -> dict[str, float]:
        best = self.best(column)
        ids = [row.id for row in self.rows if row.id and self._is_known(row, column)]
        raw = {id: p for id in ids if best and best.id in ids and id != best.id
               and (p := self.evidence.p(best.id, id, self.split, column)) is not None}
        return {id: float(f"{p:.4g}") for id, p in zip(raw, holm(list(raw.values())), strict=True)}

    def _is_known(self, row: Row, column: str) -> bool:
        """Return whether the evidence belongs to the shown score of a system and not to a replica."""
        return self.evidence.interval(row.id, self.split, column, row.score(self.split, column)) is not None

    def untested(self) -> list[str]:
        """Return the names of systems without a test against the best of some column."""
        return [row.names[0] for row in self.rows if row.id and any(
            row.score(self.split, column) is not None and row.id not in tests
            and (best := self.best(column)) and best.id != row.id for column, tests in self.tests.items())]


# Sheets --------------------------------------------------------------------------------------------------------------


def chosen(board: Board, wanted: str, usual: Sequence[str]) -> list[str]:
    """Parse a comma-separated list of keys; a leading `+` adds them to the usual ones, `all` means all.

    Raise UsageError for an unknown key.
    """
    known = board.keys()
    if not wanted:
        return list(usual)
    keys = [*(usual if wanted.startswith("+") else ()), *wanted.removeprefix("+").split(",")]
    columns = (key for word in keys for key in (known if word == "all" else [checked(board, word)]))
    return list(dict.fromkeys(columns))


def checked(board: Board, key: str) -> str:
    """Return a key if it is one of a column. Raise UsageError otherwise."""
    known = board.keys()
    if key not in known:
        whole = ", ".join(name for name in known if "." not in name)
        parts = ", ".join(f".{part}" for part in OF_SCORES if part)
        raise UsageError(f"no column `{key}`; there are: {whole}; and after a score: {parts}. "
                         f"{did_you_mean(key, known)}".rstrip())
    return key


def usual(board: Board, is_exact: bool = False) -> list[str]:
    """Return the default keys: for people, names, scores and the interval of the overall.

    For programs (`is_exact`), all keys, with intervals as two columns.
    """
    if is_exact:
        known = board.keys()
        return [key for key in known if not key.endswith(".interval")]
    return ["name", *board.titles, f"{OVERALL}.interval", *[f"{OVERALL}.apparent"] * board.is_honest,
            *[f"{OVERALL}.published"] * board.is_published]


def sheet(board: Board, facts: Mapping[str, str], keys: Sequence[str], sort: str = OVERALL) -> Sheet:
    """Make a table of some columns of a board, sorted by one: best scores first, everything else ascending."""
    rows = sorted(board.rows, key=lambda row: _order(board, row, sort))
    best = {key: _text(row.score(board.split, key)) for key in keys if (row := board.best(key))}
    cells = [[_cell(board, row, key, best.get(key, "")) for key in keys] for row in rows]
    return Sheet(facts, {key: board.title(key) for key in keys}, cells, _notes(board, keys))


def _order(board: Board, row: Row, key: str) -> tuple[bool, Any, tuple[str, ...]]:
    """Return the sort key of a row; rows without a value come last."""
    value = board.value(row, key)
    if value is None:
        return True, 0, row.names
    return False, -board.signs[key] * value if key in board.titles else value, row.names


def _cell(board: Board, row: Row, key: str, best: str) -> Cell:
    """Return one cell; `best` is the text of the best score, and all cells of equal text are marked as best."""
    value = board.value(row, key)
    if key == "name":
        return Cell(value, f"{value}{'*' * _is_apparent(board, row)}")
    if key not in board.titles:
        return Cell(value, _text(value, key))
    deviation = row.sd.get(board.split, {}).get(key)
    text = _text(value) + (f" ± {deviation:.3f}" if deviation is not None else "")
    is_best = bool(row.id) and value is not None and text == best
    return Cell(value, text, is_best, not is_best and board.tests[key].get(row.id, 0.0) > ALPHA)


def _text(value: Any, key: str = "") -> str:
    """Format a value for people."""
    if value is None or isinstance(value, str):
        return value or (NOTHING if key not in ("members", "what") else "")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " to ".join(f"{end:.3f}" for end in value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.1f}" if key == "seconds" else "<0.001" if key.endswith(".p") and value < 0.001 else f"{value:.3f}"


def _is_apparent(board: Board, row: Row) -> bool:
    """Return whether the shown scores of a row are apparent."""
    return board.split == "dev" and row.apparent


def _notes(board: Board, keys: Sequence[str]) -> list[str]:
    """Return the notes that explain the marks in use."""
    untested = board.untested()
    notes = {
        HONEST: board.is_honest,
        APPARENT: any(_is_apparent(board, row) for row in board.rows),
        TIED: any(p > ALPHA for key in keys for p in board.tests.get(key, {}).values()),
        INTERVAL: any(key.endswith((".interval", ".low", ".high")) for key in keys),
        OVER_SEEDS: any(row.sd for row in board.rows),
        _overall(board.tasks): any(task.counts != 1 for task in board.tasks),
        f"published: in results/published, of the same system, made on {' and '.join(board.published_on) or '?'}":
            any(key.endswith(".published") for key in keys) and board.is_published,
        f"not tested against the best: {_few(untested)} (docs/significance.md says when)": bool(untested),
    }
    return [note for note, is_shown in notes.items() if is_shown]


def _overall(tasks: Sequence[Column]) -> str:
    """Say what the tasks count in the overall."""
    factors = {task.title: f" times {task.counts:g}" * (task.counts != 1) for task in tasks if task.counts}
    others = ", ".join(task.title for task in tasks if not task.counts)
    mean = ", ".join(f"{title}{factor}" for title, factor in factors.items())
    return f"overall: the mean of {mean}" + f"; without {others}" * bool(others)


def _few(names: Sequence[str]) -> str:
    """Join some names, with the number of the others."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
