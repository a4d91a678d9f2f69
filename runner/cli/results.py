"""Commands that show results: table, members, plot and report."""

from __future__ import annotations

import os
from pathlib import Path

import click

from .options import JSON, SPEC, Number, load_reserved_plan, plan_options

SPLIT = click.option("--split", default="dev", show_default=True, type=click.Choice(["dev", "test"]),
                     help="Split on which scores are shown.")


@click.command()
@click.argument("results", type=click.Path(path_type=Path), default=Path("results"))
@click.option("--format", "style", default="md", show_default=True,
              type=click.Choice(["md", "csv", "json", "latex", "html", "plain"]), help="Format of the output.")
@SPLIT
@click.option("--group", default="*", metavar="NAMES",
              help="Names or patterns of systems, such as `ensemble? sum-lr@*`.")
@click.option("--columns", default="", metavar="KEYS",
              help="Columns to show, such as `name,overall`; `+what` adds one.")
@click.option("--sort", default="overall", show_default=True, metavar="KEY", help="Column to sort by.")
def table(results: Path, style: str, split: str, group: str, columns: str, sort: str) -> None:
    """Print the leaderboard of each profile.

    It is written to RESULTS/PROFILE/leaderboard.md too.
    """
    from ..errors import RegistryError, StorageError, clean
    from ..results import leaderboard
    from ..results.result_folder import read
    from ..specs.spec_files import PUBLISHED

    folders = read(results)
    tables = leaderboard.tables(folders, style, split, group, columns, sort)
    click.echo(tables.text, nl=False)
    try:
        leaderboard.publish([folder for folder in folders if folder.path.parent != results / PUBLISHED])
    except StorageError as error:  # such as of a checkout that can only be read: the table was printed
        click.echo(clean(f"note: {error}"), err=True)
    if folders[0].path.parent == results / PUBLISHED:
        click.echo("nothing is built here yet: these are the results that the project publishes", err=True)
    for note in tables.notes:
        click.echo(clean(note), err=True)
    if tables.problems:
        raise RegistryError(*tables.problems)


@click.command()
@SPEC
@plan_options
@JSON
@SPLIT
@click.option("--prune", "points", type=Number(0), metavar="POINTS",
              help="Propose the smallest ensemble that loses at most so many hundredths of overall.")
def members(spec: Path, profile: str, settings: tuple[str, ...], as_json: bool, split: str,
            points: float | None) -> None:
    """Measure what each member contributes to an ensemble."""
    from ..results.members.shapley import contributions
    from ..results.members.subtrees import subsets_of
    from .views.members import json_line, text

    plan, _ = load_reserved_plan([spec], profile, settings)
    result = contributions(subsets_of(plan, split), points is not None)
    click.echo(json_line(result, points) if as_json else text(result, points))


@click.command()
@click.argument("results", type=click.Path(path_type=Path), default=Path("results"))
@click.option("--png", is_flag=True, help="Also write each picture as PNG.")
@click.option("-o", "--output", type=click.Path(path_type=Path),
              help="Output folder; default: RESULTS/PROFILE/pictures.")
def plot(results: Path, png: bool, output: Path | None) -> None:
    """Draw pictures of all results as SVG files.

    RESULTS is a folder of results, or that of one profile in it.
    """
    from ..files import write_bytes
    from ..results.plots import drawn
    from ..results.profile_results import gather
    from .views.graph import trees

    profiles = gather(results)
    if output and len(profiles) > 1:
        raise click.UsageError(f"there are several profiles; name the folder of one, such as {profiles[0].folder}")
    for profile in profiles:
        folder = output or profile.folder / "pictures"
        for name, data in (*drawn(profile, ("svg", "png") if png else ("svg",)), ("trees.md", trees(profile.results))):
            write_bytes(folder / name, data)
            click.echo(os.path.relpath(folder / name))
        for note in profile.notes:
            click.echo(f"{profile.profile}: {note}", err=True)


@click.command()
@click.argument("results", type=click.Path(path_type=Path), default=Path("results"))
@click.option("--sentences/--no-sentences", default=True, show_default=True,
              help="Quote the sentences of the worst mistakes, or leave all text of the data out.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Output file; default: RESULTS/report.html.")
def report(results: Path, sentences: bool, output: Path | None) -> None:
    """Write one HTML page about all results and their runs.

    The page needs no network.
    """
    from ..files import write_bytes
    from ..results.profile_results import gather
    from ..results.report.page import html

    path = output or results / "report.html"
    write_bytes(path, html(gather(results), sentences))
    click.echo(os.path.relpath(path))
