"""runner/cli/results.py"""

from __future__ import annotations

import os
from pathlib import Path

import click

from . import completion
from .options import JSON, planning, reserving


@click.command()
@click.argument("results", type=click.Path(path_type=Path), default=Path("results"))
@click.option("--format", "style", default="md", show_default=True,
              type=click.Choice(["md", "csv", "json", "latex", "html", "plain"]))


@click.option("--split", default="dev", show_default=True, type=click.Choice(["dev", "test"]))
@click.option("--group", default="*", metavar="NAMES", help="Systems to show, such as `ensemble? sum-lr@*`.")
@click.option("--columns", default="", metavar="KEYS", help="Columns, such as `name,overall`; `+what` adds one.")
@click.option("--sort", default="overall", show_default=True, metavar="KEY", help="Column to sort by.")
def table(results: Path, style: str, split: str, group: str, columns: str, sort: str) -> None:
    """Print the leaderboard of each profile, and bring RESULTS/PROFILE/leaderboard.md up to date."""
    from ..errors import RegistryError, clean
    from ..results import leaderboard
    from ..results.result_folder import read
    from ..specs.spec_files import PUBLISHED

    found = read(results)
    made = leaderboard.tables(found, style, split, group, columns, sort)
    click.echo(made.text, nl=False)
    leaderboard.publish([one for one in found if one.path.parent != results / PUBLISHED])
    if found[0].path.parent == results / PUBLISHED:
        click.echo("nothing is built here yet: these are the results that the project publishes", err=True)
    for note in made.notes:
        click.echo(clean(note), err=True)
    if made.problems:
        raise RegistryError(*made.problems)


@click.command()
@click.argument("spec", type=click.Path(path_type=Path), shell_complete=completion.specs)
@planning
@JSON
@click.option("--split", default="dev", show_default=True, type=click.Choice(["dev", "test"]))
@click.option("--prune", "points", type=click.FloatRange(0), metavar="POINTS",
              help="Propose the smallest tree at most so many hundredths of overall below the whole.")


def members(spec: Path, profile: str, settings: tuple[str, ...], as_json: bool, split: str,
            points: float | None) -> None:
    """Show what each member of an ensemble is worth."""
    from ..results.members.shapley import contributions
    from ..results.members.subtrees import subsets_of
    from .views import members as appraisal

    plan, _ = reserving([spec], profile, settings)
    found = contributions(subsets_of(plan, split), points is not None)
    click.echo(appraisal.line(found, points) if as_json else appraisal.text(found, points))


@click.command()
@click.argument("results", type=click.Path(path_type=Path), default=Path("results"))
@click.option("--png", is_flag=True, help="Write each picture as PNG, too.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write into this folder instead.")
def plot(results: Path, png: bool, output: Path | None) -> None:
    """Draw pictures of all results, or of one profile's, into RESULTS/PROFILE/pictures, as SVG."""
    from ..files import write_bytes
    from ..results.plots import drawn
    from ..results.profile_results import gather
    from .views.graph import trees

    dossiers = gather(results)
    if output and len(dossiers) > 1:
        raise click.UsageError(f"there are several profiles; name the folder of one, such as {dossiers[0].folder}")
    for dossier in dossiers:
        folder = output or dossier.folder / "pictures"
        for name, data in (*drawn(dossier, ("svg", "png") if png else ("svg",)), ("trees.md", trees(dossier.results))):
            write_bytes(folder / name, data)
            click.echo(os.path.relpath(folder / name))
        for note in dossier.notes:
            click.echo(f"{dossier.profile}: {note}", err=True)


@click.command()
@click.argument("results", type=click.Path(path_type=Path), default=Path("results"))
@click.option("--sentences/--no-sentences", default=True, show_default=True,
              help="Quote the worst mistakes; without, the page can be shown where the data may not.")


@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write this file; default: RESULTS/report.html.")
def report(results: Path, sentences: bool, output: Path | None) -> None:
    """Write one HTML page about all results, runs and trees, which needs no network."""
    from ..files import write_bytes
    from ..results.profile_results import gather
    from ..results.report.page import html

    path = output or results / "report.html"
    write_bytes(path, html(gather(results), sentences))
    click.echo(os.path.relpath(path))



COMMANDS = (table, members, plot, report,)
