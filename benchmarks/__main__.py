"""The command line of the benchmarks."""

from __future__ import annotations

import importlib
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import click
from tabulate import tabulate

from . import Figure, measured

FILES = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))


@click.command()
@click.argument("files", nargs=-1, type=click.Choice(FILES))
@click.option("--only", default="", metavar="TEXT", help="Measure figures only whose name contains TEXT.")
@click.option("--rounds", default=7, show_default=True, type=click.IntRange(1), help="Measurements of each figure.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a figure.")
def main(files: tuple[str, ...], only: str, rounds: int, as_json: bool) -> None:
    """Measure the figures of FILES, or of all, and print them with their goals."""
    rows = list(_figures(files or tuple(FILES), only, rounds))
    if as_json:
        click.echo("\n".join(json.dumps(_fields(file, figure)) for file, figure in rows))
        return
    click.echo(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
               f"load {os.getloadavg()[0]:.1f}; median of {rounds}\n")
    table = [[figure.case.name, f"{figure.median:.3f} {figure.case.unit}",
              f"{min(figure.samples):.3f} to {max(figure.samples):.3f}", _goal(figure)] for _, figure in rows]
    click.echo(tabulate(table, ["figure", "median", "all", "goal"], disable_numparse=True,
                        colalign=("left", "right", "right", "left")))


def _figures(files: tuple[str, ...], only: str, rounds: int) -> Iterator[tuple[str, Figure]]:
    """Yield each figure that is asked for, with its file."""
    for file in files:
        cases = [case for case in importlib.import_module(f"benchmarks.{file}").cases() if only in case.name]
        yield from ((file, figure) for figure in measured(cases, rounds))


def _goal(figure: Figure) -> str:
    if figure.case.goal is None:
        return ""
    return f"at most {figure.case.goal:g} {figure.case.unit}: {'met' if figure.met else 'missed'}"


def _fields(file: str, figure: Figure) -> dict[str, object]:
    case = figure.case
    return {"v": 1, "file": file, "figure": case.name, "median": figure.median, "samples": figure.samples,
            "unit": case.unit, "goal": case.goal, "met": figure.met}


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
