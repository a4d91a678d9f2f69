"""Leaderboards: tables of a folder of results for the command line, and the published page of a profile."""

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
"""Columns that describe the systems."""


@dataclass(frozen=True)
class Tables:
    """The tables of a folder of results as text, with notes and problems."""

    text: str
    notes: Sequence[str]
    """Results left out, with reasons."""
    problems: Sequence[Problem]
    """Problems of files that are not shown."""


def tables(folders: Sequence[ResultFolder], style: str = "md", split: str = "dev", group: str = "*", columns: str = "",
           sort: str = OVERALL) -> Tables:
    """Return the tables of some profiles, one per profile and suite.

    `group` holds name patterns separated by spaces, `columns` keys separated by commas, `sort` a key. Raise UsageError
    if one of them matches nothing, RegistryError if no profile can be shown.
    """
    problems = [problem for folder in folders for problem in folder.problems]
    if problems and not any(folder.files for folder in folders):
        raise RegistryError(*problems)
    everything = [row for folder in folders for part in by_suite(folder.results).values() for row in leaderboard(part)]
    selected(everything, group, must=True)
    sheets = []
    for folder in folders:
        for facts, board in boards(folder, split, group):
            keys = table.chosen(board, columns, table.usual(board, style in formats.EXACT))
            sheets.append(table.sheet(board, facts, keys, table.checked(board, sort)))
    if not sheets:
        raise UsageError(f"no system of `{group}` has scores on {split}")
    notes = [f"{folder.profile}: {note}" for folder in folders for note in folder.notes]
    return Tables(formats.FORMATS[style](sheets), notes, problems)


def boards(folder: ResultFolder, split: str, group: str = "*") -> Iterator[tuple[dict[str, str], Board]]:
    """Yield the facts and the board of each suite of a profile; suites without scores on the split are skipped."""
    known = costs(folder.path)
    published, machines = _published(folder)
    for (suite, sha256), results in by_suite(folder.results).items():
        rows = [row for row in selected(leaderboard(results), group) if row.scores.get(split)]
        if rows:
            evidence = folder.significance.suites.get(sha256, Evidence())
            board = Board([*rows, *over_seeds(rows)], results[0].tasks, split, evidence, known, published, machines)
            yield {"profile": folder.profile, "suite": suite, "sha256": sha256, "split": split}, board


def _published(folder: ResultFolder) -> tuple[Published, list[str]]:
    """Return the published scores of the nodes of a profile, and the machines on which they were computed."""
    published = folder.path.parent / PUBLISHED / folder.path.name
    if folder.path.parent.name == PUBLISHED or not published.is_dir():
        return {}, []
    nodes = [node for result in read_profile(published).results for node in result.tree.nodes()]
    machines = {str(cost.get("device", "")) for cost in costs(published).values()}
    return {node.id: node.shown() for node in nodes}, sorted(machines - {""})


def page(folder: ResultFolder) -> str:
    """Return the leaderboard of a profile as markdown: dev, test, descriptions of the systems; byte-stable."""
    sheets = []
    for split in ("dev", "test"):
        for facts, board in boards(folder, split):
            keys = ["name", *(f"{column}{part}" for column in board.titles for part in ("", ".interval"))]
            sheets.append(table.sheet(board, facts, keys))
    for facts, board in boards(folder, "dev"):
        descriptions = table.sheet(board, {**facts, "split": "what the systems are"}, SYSTEMS)
        sheets.append(replace(descriptions, notes=()))
    return f"# Leaderboard: {formats.escaped(folder.profile)}\n\n{formats.markdown(sheets)}"


def publish(folders: Sequence[ResultFolder]) -> None:
    """Update the page of each profile. Raise StorageError if one cannot be written."""
    for folder in folders:
        content, file = page(folder).encode(), folder.path / PAGE
        if folder.files and not (file.exists() and file.read_bytes() == content):
            write_bytes(file, content)
