"""Commands that set up projects and parts: init, new and schema."""

from __future__ import annotations

import os
from pathlib import Path

import click


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--data", "files", multiple=True, metavar="FILE", type=click.Path(path_type=Path),
              help="A file of your own, such as films-train.csv; can be repeated. Suite, profile and a first spec are "
              "written for these files.")
def init(folder: Path, files: tuple[Path, ...]) -> None:
    """Create a project that builds at once.

    No file in DIR is overwritten.
    """
    from .own_data import own_data
    from .scaffold import init
    from .schema import Schemas

    if files:
        init(folder, Schemas().files(), own_data(folder, files))
        click.echo(f"made {folder}: look at {folder / 'specs/suites/mine.toml'}, then `cd {folder}` and "
                   "`mtrun build specs/first.toml`")
        return
    init(folder, Schemas().files())
    click.echo(f"made {folder}: see {folder / 'README.md'}, then `cd {folder}` and `mtrun build specs/ensemble.toml`")


@click.command()
@click.argument("family", type=click.Choice(["head", "loss", "combiner", "optimizer", "schedule", "regularizer",
                                             "encoder", "adapter", "ensemble", "suite", "executor"]))
@click.argument("name")
def new(family: str, name: str) -> None:
    """Create a part of your own from a documented template.

    It is written to parts/ of the project, in the folder of its family.
    """
    from ..project import Project
    from .scaffold import new

    click.echo(os.path.relpath(new(family, name, Project.here().folder)))
    click.echo("`mtrun schema --write` tells your editor about it", err=True)


@click.command()
@click.argument("kind", required=False, type=click.Choice(["model", "ensemble", "soup", "suite", "profile"]))
@click.option("--write", is_flag=True,
              help="Write all schemas to specs/.schema, and the generated half of docs/specs.md.")
def schema(kind: str | None, write: bool) -> None:
    """Print or write the JSON Schemas of specs, for editors."""
    from ..project import Project
    from .reference import write_reference
    from .schema import FOLDER, Schemas

    project = Project.here().folder
    schemas = Schemas(project)
    if kind:
        click.echo(schemas.files()[FOLDER / f"{kind}.json"], nl=False)
    elif not write:
        raise click.UsageError("name a kind of file, or pass --write")
    for path in write_reference(project, schemas) if write else ():
        click.echo(os.path.relpath(path))
