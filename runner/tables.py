"""Tables: many results as one leaderboard."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import Problem, RegistryError, UsageError, clean
from .files import reported
from .results import Column, Result, ResultNode
from .scores import OVERALL

COSTS = "costs.json"
"""The file of seconds and memory next to the results, which is none of them."""

APPARENT = "chosen on dev, or made of what was: its dev score is apparent"
"""What the mark `*` means."""

HONEST = "cross-fitted: choices are made on parts of dev and scored on the rest; rows are ranked by it"
"""What the column of honest scores means."""

@dataclass(frozen=True)
class Row:
    """One named node of a leaderboard; a node with several names has them all, the shortest first."""

    names: tuple[str, ...]
    what: str
    scores: dict[str, dict[str, float | None]]
    members: tuple[str, ...]
    """Direct members of an ensemble, only the chosen ones where a rule chose."""
    apparent: bool
    honest: float | None = None
    """Overall on dev, cross-fitted where something was chosen; None where that was not possible."""


def leaderboard(results: Sequence[Result]) -> list[Row]:
    """Return the named nodes of trees scored on one suite, each once, by honest dev overall and then by name.

    Raise RegistryError where two results give one node different scores.
    """
    nodes: dict[str, ResultNode] = {}
    names: dict[str, set[str]] = {}
    for node in (node for result in results for node in result.tree.nodes()):
        if nodes.setdefault(node.id, node).scores != node.scores:
            raise RegistryError(Problem(f"two results give `{node.name or node.what}` ({node.id}) different scores",
                                        hint="build the specs that contain it again, from one registry"))
        names.setdefault(node.id, set()).update({node.name} - {""})
    called = {key: tuple(sorted(found, key=lambda name: (len(name), name))) for key, found in names.items()}
    rows = [Row(called[key], node.what, node.scores, _members(node, called), node.is_apparent(), _honest(node))
            for key, node in nodes.items() if called[key]]
    return sorted(rows, key=_rank)


def _rank(row: Row) -> tuple[bool, float, tuple[str, ...]]:
    """Return what rows are sorted by: those without a dev overall come last."""
    overall = _cell(row, "dev", OVERALL) if row.honest is None else row.honest
    return overall is None, -(overall or 0.0), row.names


def _honest(node: ResultNode) -> float | None:
    """Return a node's dev overall, cross-fitted where something was chosen; None where that was not possible."""
    if node.honest is not None:
        return node.honest[OVERALL]
    return None if node.is_apparent() else node.scores.get("dev", {}).get(OVERALL)


def _cell(row: Row, split: str, column: str) -> float | None:
    """Return one score, or None."""
    return row.scores.get(split, {}).get(column)


def _members(node: ResultNode, called: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return what the members are called, with their roles; an unnamed one is described, its own members after it."""
    shown = range(len(node.members)) if node.chosen is None else node.chosen
    texts = []
    for position in shown:
        member = node.members[position]
        inner = ", ".join(_members(member, called))
        text = called[member.id][0] if called[member.id] else f"{member.what}{inner and f' ({inner})'}"
        role = node.roles[position] if node.roles else ""
        texts.append(f"{role}: {text}" if role else text)
    return tuple(texts)


def read(folder: Path) -> dict[str, list[Result]]:
    """Return all results under a folder by profile, in the order of their file names.

    Raise RegistryError for a file that is damaged or foreign, StorageError for one that cannot be read.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder of results at {folder}")
    found: dict[str, list[Result]] = {}
    for path in sorted(folder.glob("*/*.json")):
        if path.name == COSTS:
            continue
        with reported("read", path):
            data = path.read_bytes()
        found.setdefault(path.parent.name, []).append(Result.from_json(data, str(path)))
    return found


def markdown(results_dir: Path) -> dict[str, str]:
    """Return each profile's leaderboard as markdown: one table a suite, byte-stable."""
    return {profile: _page(profile, results) for profile, results in read(results_dir).items()}


def _page(profile: str, results: Sequence[Result]) -> str:
    """Return one profile's leaderboard."""
    by_suite: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        by_suite.setdefault((result.suite, result.sha256), []).append(result)
    parts = [f"# Leaderboard: {escaped(profile)}\n"]
    for (suite, sha256), group in sorted(by_suite.items()):
        rows = leaderboard(group)
        parts += [f"## Suite {escaped(suite)}, content {sha256[:12]}\n", _table(rows, group[0].tasks) + "\n"]
        parts += [f"\\* {APPARENT}\n"] if any(row.apparent for row in rows) else []
        parts += [f"overall honest: {HONEST}\n"] if any(map(_is_crossfitted, rows)) else []
    return "\n".join(parts)


def _table(rows: Sequence[Row], tasks: Sequence[Column]) -> str:
    """Return rows as a table; a test column is there where a test score is."""
    from tabulate import tabulate  # here, since not every command shows a table

    columns = [("dev", *column) for column in _columns(tasks)]
    columns += [("test", *column) for column in _columns(tasks)
                if any(_cell(row, "test", column[0]) is not None for row in rows)]
    scores = [_formatted([_cell(row, split, name) for row in rows]) for split, name, _ in columns]
    headers = [f"{escaped(title)} {split}" for split, _, title in columns]
    if any(map(_is_crossfitted, rows)):
        after = len(tasks) + 1  # behind the overall on dev
        scores.insert(after, _formatted([row.honest for row in rows]))
        headers.insert(after, "overall honest")
    table = [[escaped(", ".join(row.names)) + ("\\*" if row.apparent else ""), escaped(row.what), *cells,
              escaped(", ".join(row.members))] for row, *cells in zip(rows, *scores, strict=True)]
    align = ["left", "left", *("right" for _ in headers), "left"]
    headers = ["name", "what it is", *headers, "members"]
    return tabulate(table, headers, tablefmt="pipe", disable_numparse=True, colalign=align)


def _is_crossfitted(row: Row) -> bool:
    """Tell whether a row's honest score is another than its dev score."""
    return row.apparent and row.honest is not None


def _columns(tasks: Sequence[Column]) -> list[tuple[str, str]]:
    """Return the name and title of each column of scores."""
    return [*((task.name, task.title) for task in tasks), (OVERALL, OVERALL)]


def _formatted(column: Sequence[float | None]) -> list[str]:
    """Return a column's cells with 3 decimals, a dash for None, and in bold all that look like the best."""
    texts = ["—" if value is None else f"{value:.3f}" for value in column]
    best = max((value for value in column if value is not None), default=None)
    return [f"**{text}**" if best is not None and text == f"{best:.3f}" else text for text in texts]


def escaped(text: str) -> str:
    """Return text that markdown shows as it is, in a cell of a table or in a heading."""
    return re.sub(r"[\\`*\[\]<>|~&$#]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", clean(text))
