"""Leaderboards: the tables of a folder of results, as they are asked for and as they are published."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from . import formats, sheets
from .errors import UsageError
from .files import write_bytes
from .results import Result, costs
from .scores import OVERALL
from .sheets import Board
from .significance import Evidence, Significance
from .tables import by_suite, leaderboard, over_seeds, read, selected

PAGE = "leaderboard.md"
SYSTEMS = ("name", "what", "parameters", "members")
"""Columns that say what the systems are."""


def text(folder: Path, style: str = "md", split: str = "dev", group: str = "*", columns: str = "",
         sort: str = OVERALL) -> str:
    """Return the tables of all results under a folder, one for each profile and suite.

    `group` are patterns of names between spaces, `columns` keys between commas, `sort` is a key. Raise UsageError where
    nothing is like them, RegistryError for a damaged file.
    """
    found = read(folder)
    if not found:
        raise UsageError(f"there are no results in {folder}: `mtrun build SPEC` makes some")
    everything = [row for results in found.values() for part in by_suite(results).values() for row in leaderboard(part)]
    selected(everything, group, must=True)
    made = []
    for path, results in found.items():
        for facts, board in boards(path, results, split, group):
            keys = sheets.chosen(board, columns, sheets.usual(board, style in formats.EXACT))
            made.append(sheets.sheet(board, facts, keys, sheets.checked(board, sort)))
    if not made:
        raise UsageError(f"no system of `{group}` has scores on {split}")
    return formats.FORMATS[style](made)


def boards(folder: Path, results: Sequence[Result], split: str, group: str = "*"
           ) -> Iterator[tuple[dict[str, str], Board]]:
    """Yield one profile's systems by suite, each suite after its facts; none of a suite without scores on the split."""
    significance, known = Significance.read(folder), costs(folder)
    for (suite, sha256), found in by_suite(results).items():
        rows = [row for row in selected(leaderboard(found), group) if row.scores.get(split)]
        if rows:
            evidence = significance.suites.get(sha256, Evidence())
            board = Board([*rows, *over_seeds(rows)], found[0].tasks, split, evidence, known)
            yield {"profile": folder.resolve().name, "suite": suite, "sha256": sha256, "split": split}, board


def page(folder: Path, results: Sequence[Result]) -> str:
    """Return one profile's leaderboard as markdown: dev, test, and what the systems are; byte-stable."""
    made = []
    for split in ("dev", "test"):
        for facts, board in boards(folder, results, split):
            keys = ["name", *(f"{column}{part}" for column in board.titles for part in ("", ".interval"))]
            made.append(sheets.sheet(board, facts, keys))
    for facts, board in boards(folder, results, "dev"):
        what = sheets.sheet(board, {**facts, "split": "what the systems are"}, SYSTEMS)
        made.append(replace(what, notes=()))
    return f"# Leaderboard: {formats.escaped(folder.resolve().name)}\n\n{formats.markdown(made)}"


def publish(folder: Path) -> None:
    """Bring the page of each profile up to date. Raise StorageError where one cannot be written."""
    for path, results in read(folder).items():
        made, file = page(path, results).encode(), path / PAGE
        if not file.exists() or file.read_bytes() != made:
            write_bytes(file, made)
