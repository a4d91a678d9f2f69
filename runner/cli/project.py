"""runner/cli/project.py"""

from __future__ import annotations

import os
from pathlib import Path

import click


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
def init(folder: Path) -> None:
    """Make a project in DIR that builds at once; nothing is overwritten."""
    from .scaffold import init
    from .schema import Schemas

    init(folder, Schemas().files())
    click.echo(f"made {folder}: see {folder / 'README.md'}, then `cd {folder}` and `mtrun build specs/ensemble.toml`")


@click.command()
@click.argument("family", type=click.Choice(["head", "loss", "combiner", "optimizer", "schedule", "regularizer",
                                             "encoder", "ensemble", "suite", "executor"]))


@click.argument("name")
def new(family: str, name: str) -> None:
    """Write a documented part of your own into parts/."""
    from ..project import project_of
    from .scaffold import new

    click.echo(os.path.relpath(new(family, name, project_of(Path("spec.toml")))))
    click.echo("`mtrun schema --write` tells your editor about it", err=True)


@click.command()
@click.argument("kind", required=False, type=click.Choice(["model", "ensemble", "soup", "suite", "profile"]))
@click.option("--write", is_flag=True, help="Write all of them, and the generated half of docs/specs.md.")
def schema(kind: str | None, write: bool) -> None:
    """Print the JSON Schema of a KIND of file, or write all of them for editors."""
    from ..project import project_of
    from .reference import written
    from .schema import FOLDER, Schemas

    project = project_of(Path("spec.toml"))
    schemas = Schemas(project)
    if kind:
        click.echo(schemas.files()[FOLDER / f"{kind}.json"], nl=False)
    elif not write:
        raise click.UsageError("name a kind of file, or pass --write")
    for path in written(project, schemas) if write else ():
        click.echo(os.path.relpath(path))

COMMANDS = (init, new, schema,)
