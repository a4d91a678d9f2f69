"""The command line: the only room that prints and exits.

What a command needs is imported when it runs, so that `--help` and completion stay quick.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn, TextIO

import click

from . import build, bundle, predict, project, results, runs


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mtrun")
def cli() -> None:
    """Declarative runs of multi-task BERT, and ensembles of them."""


for module in (build, predict, bundle, results, runs, project):
    for command in module.COMMANDS:
        cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with one of mtrun's codes."""
    from ..errors import MtrunError, Stopped
    from ..files import as_storage_error

    warnings.showwarning = _warn

    try:
        cli.main(args=list(arguments) if arguments is not None else None, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except Stopped as error:
        click.echo(error.render().removeprefix("error: "), err=True)
        sys.exit(error.exit_code)
    except MtrunError as error:
        click.echo(error.render(), err=True)
        sys.exit(error.exit_code)
    except Exception as error:
        if not (said := as_storage_error(error)):
            _bug(error)
        click.echo(said.render(), err=True)
        sys.exit(said.exit_code)
    sys.exit(0)


def _warn(message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None,
          line: str | None = None) -> None:
    """Print a warning as one line with its place."""
    click.echo(f"warning: {filename}:{lineno}: {message}", err=True)


def _bug(error: Exception) -> NoReturn:
    """Say that this is our fault; the traceback goes into a file, not to the user."""
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="mtrun-bug-", suffix=".txt", delete=False) as file:
        traceback.print_exception(error, file=file)
    click.echo(f"error: a bug in mtrun: {type(error).__name__}: {error}\n --> {file.name} holds the details", err=True)
    sys.exit(4)
