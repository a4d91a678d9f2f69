"""The tables of a folder of results, for tests."""

from __future__ import annotations

from pathlib import Path

from runner.results.leaderboard import publish, tables
from runner.results.result_folder import read


def text(folder: Path, style: str = "md", split: str = "dev", group: str = "*", columns: str = "",
         sort: str = "overall") -> str:
    """Return the tables of all results under a folder."""
    return tables(read(folder), style, split, group, columns, sort).text


def written(folder: Path) -> None:
    """Bring the pages of a folder up to date."""
    publish(read(folder))
