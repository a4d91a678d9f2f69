"""The README: its specs are those of the project, its table is what its command prints.

To take over a new table: MTRUN_WRITE_DOCS=1 python -m pytest tests/test_readme.py
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import tomli
from click.testing import CliRunner

from runner.cli import cli

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)


def test_its_specs_are_those_of_the_project() -> None:
    model, ensemble = blocks("toml")
    assert tomli.loads(model) == tomli.loads((ROOT / "specs" / "models" / "pcgrad.toml").read_text())
    assert tomli.loads(ensemble) == tomli.loads((ROOT / "specs" / "ensemble7.toml").read_text())


def test_its_table_is_what_the_command_prints() -> None:
    (command,) = re.findall(r"`mtrun (table [^`]* --group [^`]*)`", PAGE)
    printed = CliRunner().invoke(cli, [word.replace("results", str(ROOT / "results")) for word in shlex.split(command)])
    rows = "".join(f"{line}\n" for line in printed.stdout.splitlines() if line.startswith("|"))
    assert rows.count("\n") == 12
    if os.environ.get("MTRUN_WRITE_DOCS"):
        table = re.compile(r"(?<=\n\n)\| name .*?\n(?=\n)", re.S)
        (ROOT / "README.md").write_text(table.sub(lambda _: rows, PAGE, count=1))
    assert rows in PAGE


def test_its_two_commands_set_a_machine_up() -> None:
    """`.ci/run` runs the second as it stands here; the one in between is what `init` itself says."""
    first, trial, third, *_ = blocks("sh")
    assert trial == "mtrun init trial && cd trial && mtrun build specs/ensemble.toml\n"
    assert (first, third) == ("pip install -e . && mtrun build specs/ensemble7.toml\n",
                              "pip install -e '.[test]' && python -m pytest -n 2\n")
