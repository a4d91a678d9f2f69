"""The command line of the benchmarks."""

from __future__ import annotations

import importlib
import json
import os
import platform
import warnings
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

import click
from tabulate import tabulate

from runner import machine

from . import Figure, measured

FILES = ("steps", "encoders", "memory", "scoring", "leaves", "growth", "rows", "trees", "nodes", "startup", "gpu")
THREADS = 1
"""Threads of whatever is measured, where its name does not tell."""
PACKAGES = ("torch", "numpy", "transformers", "sentence-transformers", "tokenizers")


@click.command()
@click.argument("files", nargs=-1, type=click.Choice(FILES))
@click.option("--only", default="", metavar="TEXT", help="Measure figures only whose name contains TEXT.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="Measurements of each figure.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a figure.")
def main(files: tuple[str, ...], only: str, rounds: int, as_json: bool) -> None:
    """Measure the figures of FILES, or of all, and print them with their goals."""
    warnings.filterwarnings("ignore")
    if not as_json:
        click.echo(f"{_machine()}, load {os.getloadavg()[0]:.1f}\n{_versions()}\nmedian of {rounds} rounds in turn\n")
    has_bf16, why = machine.computes_bf16("auto")
    if not has_bf16:
        click.echo(f"bf16 is not measured: {why}", err=as_json)
    for file in files or FILES:
        module = importlib.import_module(f"benchmarks.{file}")
        for line in module.gate() if hasattr(module, "gate") and not only else ():
            click.echo(f"{file}: {line}", err=as_json)
        figures = list(_figures(module, only, rounds, has_bf16))
        if as_json:
            click.echo("\n".join(json.dumps(_fields(file, figure)) for figure in figures))
        elif figures:
            click.echo(f"\n{_table(file, figures)}\n")


def _figures(module: ModuleType, only: str, rounds: int, has_bf16: bool) -> Iterator[Figure]:
    """Yield the figures of a file that are asked for; a ratio brings the cases that it is made of.

    Those of bf16 mean nothing where it is emulated, and are left out.
    """
    ratios = [ratio for ratio in getattr(module, "RATIOS", ()) if only in ratio.name]
    needed = {name for ratio in ratios for name in (ratio.over, ratio.under)}
    cases = [case for case in module.cases()
             if (only in case.name or case.name in needed) and (has_bf16 or "bf16" not in case.name)]
    names = {case.name for case in cases}
    yield from measured(cases, rounds, [r for r in ratios if {r.over, r.under} <= names])


def _table(file: str, figures: list[Figure]) -> str:
    """Return the figures of one file as a table."""
    rows = [[figure.name, f"{figure.median:.3g} {figure.unit}",
             f"{min(figure.samples):.3g} to {max(figure.samples):.3g}", figure.verdict] for figure in figures]
    return tabulate(rows, [file, "median", "all", "goal / stretch"], tablefmt="github", disable_numparse=True,
                    colalign=("left", "right", "right", "left"))


def _machine() -> str:
    """Return what machine this is."""
    return (f"{machine.processor()}, {machine.instruction_set()}, {os.cpu_count()} cores, {THREADS} thread where no "
            f"more are told, Python {platform.python_version()}")


def _versions() -> str:
    """Return the versions of what is compared."""
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"no {package}")
    return ", ".join(found)


def _fields(file: str, figure: Figure) -> dict[str, object]:
    return {"v": 1, "file": file, "figure": figure.name, "median": figure.median, "samples": figure.samples,
            "unit": figure.unit, "goal": figure.goal, "stretch": figure.stretch, "met": figure.met,
            "processor": machine.processor(), "instructions": machine.instruction_set(), "torch": version("torch"),
            "threads": THREADS}


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
