"""Leaderboards: the tables of a folder of results, as they are asked for and as they are published."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ..errors import Problem, RegistryError, UsageError
from ..files import write_bytes
from ..specs.spec_files import PUBLISHED
from ..tasks.metrics import OVERALL
from . import formats, table
from .costs import costs
from .result_folder import ResultFolder, read_profile
from .rows import by_suite, leaderboard, over_seeds, selected
from .significance import Evidence
from .table import Board, Published

PAGE = "leaderboard.md"

SYSTEMS = ("name", "what", "parameters", "members")
"""Columns that say what the systems are."""


@dataclass(frozen=True)
class Tables:
    """The tables of a folder of results as text, and what is to be said beside them."""

    text: str
    notes: Sequence[str]
    """Results that are left out, and why."""
    problems: Sequence[Problem]
    """What is wrong with files that are not shown."""


def tables(profiles: Sequence[ResultFolder], style: str = "md", split: str = "dev", group: str = "*", columns: str = "",
           sort: str = OVERALL) -> Tables:
    """Return the tables of some profiles, one for each profile and suite.

    `group` are patterns of names between spaces, `columns` keys between commas, `sort` is a key. Raise UsageError where
    nothing is like them, RegistryError where no profile can be shown.
    """
    problems = [problem for one in profiles for problem in one.problems]
    if problems and not any(one.files for one in profiles):
        raise RegistryError(*problems)
    everything = [row for one in profiles for part in by_suite(one.results).values() for row in leaderboard(part)]
    selected(everything, group, must=True)
    sheets_ = []
    for one in profiles:
        for facts, board in boards(one, split, group):
            keys = table.chosen(board, columns, table.usual(board, style in formats.EXACT))
            sheets_.append(table.sheet(board, facts, keys, table.checked(board, sort)))
    if not sheets_:
        raise UsageError(f"no system of `{group}` has scores on {split}")
    notes = [f"{one.profile}: {note}" for one in profiles for note in one.notes]
    return Tables(formats.FORMATS[style](sheets_), notes, problems)


def boards(one: ResultFolder, split: str, group: str = "*") -> Iterator[tuple[dict[str, str], Board]]:
    """Yield one profile's systems by suite, each suite after its facts; none of a suite without scores on the split."""
    known = costs(one.path)
    published, machines = _published(one)
    for (suite, sha256), found in by_suite(one.results).items():
        rows = [row for row in selected(leaderboard(found), group) if row.scores.get(split)]
        if rows:
            evidence = one.significance.suites.get(sha256, Evidence())
            board = Board([*rows, *over_seeds(rows)], found[0].tasks, split, evidence, known, published, machines)
            yield {"profile": one.profile, "suite": suite, "sha256": sha256, "split": split}, board


def _published(one: ResultFolder) -> tuple[Published, list[str]]:
    """Return what the repository publishes of the nodes of a profile, and on which machines that was made."""
    folder = one.path.parent / PUBLISHED / one.path.name
    if one.path.parent.name == PUBLISHED or not folder.is_dir():
        return {}, []
    nodes = [node for result in read_profile(folder).results for node in result.tree.nodes()]
    made_on = {str(cost.get("device", "")) for cost in costs(folder).values()}
    return {node.id: node.shown() for node in nodes}, sorted(made_on - {""})


def page(one: ResultFolder) -> str:
    """Return one profile's leaderboard as markdown: dev, test, and what the systems are; byte-stable."""
    sheets_ = []
    for split in ("dev", "test"):
        for facts, board in boards(one, split):
            keys = ["name", *(f"{column}{part}" for column in board.titles for part in ("", ".interval"))]
            sheets_.append(table.sheet(board, facts, keys))
    for facts, board in boards(one, "dev"):
        what = table.sheet(board, {**facts, "split": "what the systems are"}, SYSTEMS)
        sheets_.append(replace(what, notes=()))
    return f"# Leaderboard: {formats.escaped(one.profile)}\n\n{formats.markdown(sheets_)}"


def publish(found: Sequence[ResultFolder]) -> None:
    """Bring the page of each profile up to date. Raise StorageError where one cannot be written."""
    for one in found:
        made, file = page(one).encode(), one.path / PAGE
        if one.files and not (file.exists() and file.read_bytes() == made):
            write_bytes(file, made)
