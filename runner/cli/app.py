"""Root command of mtrun: its groups of commands, exit codes and the rendering of errors.

Each command imports what it needs when it runs, so that `--help` and completion stay quick.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper
from typing import NoReturn, TextIO

import click

from .build import build, check, plan_command
from .bundle import export, import_bundle, reproduce
from .data import data
from .predict import predict, submit
from .project import init, new, schema
from .results import members, plot, report, table
from .runs import diff, gc, list_runs, logs, rm, show, verify

SECTIONS: dict[str, tuple[click.Command, ...]] = {
    "Build models and ensembles": (data, check, plan_command, build),
    "Look at results and runs": (table, report, plot, members, list_runs, show, logs, diff),
    "Use what was built": (predict, submit, export, import_bundle, reproduce),
    "Housekeeping": (init, new, schema, verify, rm, gc),
}
"""The commands under the titles that `mtrun --help` gives them, each in the order in which they are used."""


class SectionedGroup(click.Group):
    """Group of commands whose help page lists them by section, with their help lines uncut."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections into the help page, all with one column of names."""
        width = max(map(len, self.commands))
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(f"{command.name:{width}}", command.get_short_help_str(formatter.width))
                                    for command in commands])


@click.group(cls=SectionedGroup, commands=[command for commands in SECTIONS.values() for command in commands],
             context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mtrun")
def cli() -> None:
    """Train multi-task sentence encoders from TOML specs, combine them into ensembles and compare their scores."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with one of mtrun's codes."""
    warnings.showwarning = _print_warning
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # not every terminal is UTF-8
    if data := os.environ.get("MTRUN_DATA"):
        with suppress(OSError):  # workers run in other folders
            os.environ["MTRUN_DATA"] = os.path.abspath(os.path.expanduser(data))
    code, message = _run(arguments)
    if message:
        with suppress(OSError):
            click.echo(message, err=True)
    sys.exit(code)


def _run(arguments: Sequence[str] | None) -> tuple[int, str]:
    """Run the command line; return the exit code and the message of an error."""
    from ..errors import MtrunError, Stopped
    from ..files import as_storage_error

    try:
        cli.main(args=list(arguments) if arguments is not None else None, standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        is_option = isinstance(error, click.NoSuchOption)
        return 2, "hint: text that begins with - goes behind a --" if is_option else ""
    except (click.Abort, KeyboardInterrupt):
        return 130, ""
    except Stopped as error:
        return error.exit_code, error.render().removeprefix("error: ")
    except MtrunError as error:
        return error.exit_code, error.render()
    except OSError as error:
        _discard_output()
        if not _has_working_folder():
            return 2, "error: the working folder was deleted\n\nhint: cd to a folder that is there"
        refusal = as_storage_error(error)
        return (refusal.exit_code, refusal.render()) if refusal else _bug(error)
    except Exception as error:
        from ..parts.discovery import error_in_own_part

        own = error_in_own_part(error)
        return (own.exit_code, own.render()) if own else _bug(error)
    return 0, ""


def _discard_output() -> None:
    """Send what is still buffered for standard output nowhere, so that nothing fails again at exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _has_working_folder() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def _print_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int,
                   file: TextIO | None = None, line: str | None = None) -> None:
    """Print a warning as one line with its file and line number."""
    click.echo(f"warning: {filename}:{lineno}: {message}", err=True)


def _bug(error: Exception) -> tuple[int, str]:
    """Write the traceback of an unexpected error to a temporary file; return exit code and message."""
    import tempfile
    import traceback

    message = f"error: a bug in mtrun: {type(error).__name__}: {error}"
    with (suppress(OSError),
          tempfile.NamedTemporaryFile("w", prefix="mtrun-bug-", suffix=".txt", delete=False) as file):
        traceback.print_exception(error, file=file)
        message += f"\n --> {file.name} holds the details"
    return 4, message
