"""`mtrun --help`: every command once, in a section, with a whole line of help; and nothing slow is imported for it."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
from click.testing import CliRunner

from runner.cli.app import SECTIONS, cli


@pytest.fixture(scope="module")
def page() -> list[str]:
    """The lines of the help page on a terminal of 80 columns."""
    return CliRunner().invoke(cli, ["--help"], terminal_width=80, max_content_width=80).stdout.splitlines()


def test_no_line_is_cut_or_wrapped(page: list[str]) -> None:
    assert not [line for line in page if line.endswith("...") and not line.startswith("Usage:")]
    assert max(map(len, page)) <= 80
    listed = page[page.index(f"{next(iter(SECTIONS))}:"):]
    assert sum(map(bool, listed)) == len(SECTIONS) + len(cli.commands), "a line for each title and each command"


def test_each_command_is_in_one_section(page: list[str]) -> None:
    counts = Counter(command.name for commands in SECTIONS.values() for command in commands)
    assert counts.keys() == cli.commands.keys() and set(counts.values()) == {1}
    title, shown = "", []
    for line in page[page.index(f"{next(iter(SECTIONS))}:"):]:
        title = line.removesuffix(":") if line.endswith(":") else title
        shown += [(title, line.split()[0])] if line.startswith("  ") else []
    assert shown == [(title, command.name) for title, commands in SECTIONS.items() for command in commands]


@pytest.mark.parametrize("name", cli.commands)
def test_a_command_has_help_of_its_own(name: str) -> None:
    """Its first sentence is the line of the page above; each option says what it does."""
    done = CliRunner().invoke(cli, [name, "--help"], terminal_width=80, max_content_width=80)
    first = cli.commands[name].get_short_help_str(80)
    assert done.exit_code == 0 and f"\n  {first}\n" in done.stdout and first.endswith(".")
    assert all(getattr(parameter, "help", "") for parameter in cli.commands[name].params
               if parameter.param_type_name == "option")


def test_help_imports_no_torch() -> None:
    code = "import sys; from runner.cli import main\ntry:\n    main(['--help'])\nfinally:\n    print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "pydantic"} & {*done.stdout.splitlines()[-1].split()}
