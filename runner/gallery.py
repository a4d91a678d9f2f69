"""The commands that show results beyond tables: plot, report."""

from __future__ import annotations

import os
from pathlib import Path

import click


@click.command()
@click.argument("results", type=click.Path(path_type=Path), default=Path("results"))
@click.option("--png", is_flag=True, help="Write each picture as PNG, too.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write into this folder instead.")
def plot(results: Path, png: bool, output: Path | None) -> None:
    """Draw pictures of all results, or of one profile's, into RESULTS/PROFILE/pictures, as SVG."""
    from .dossier import gather
    from .files import write_bytes
    from .graphs import trees
    from .pictures import drawn

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
    from .dossier import gather
    from .files import write_bytes
    from .report import html

    path = output or results / "report.html"
    write_bytes(path, html(gather(results), sentences))
    click.echo(os.path.relpath(path))


COMMANDS = (plot, report)
