"""The README: its specs are those of the project, its table is what its command prints.

To take over a new table: MTRUN_WRITE_DOCS=1 python -m pytest tests/end_to_end/test_readme.py
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import tomli
from click.testing import CliRunner
from systems import mtrun

from runner.cli.app import cli

ROOT = Path(__file__).parents[2]
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


def test_what_was_built_is_used_as_it_says(trained: Path, tmp_path: Path) -> None:
    """Its commands and its Python, on a small system that is called like the one of the page."""
    root = shutil.copytree(trained, tmp_path / "project")
    questions = "id,sentence1,sentence2\n1,What is a film?,What is a weak film?\n"
    (root / "questions.csv").write_text(questions)
    (used,) = (block for block in blocks("sh") if "mtrun predict" in block)
    for line in used.replace("ensemble7", "deep").splitlines():
        done = mtrun(root, *shlex.split(line, comments=True)[1:])
        assert done.code == 0, done.err
    (code,) = blocks("python")
    call, table = code.replace("ensemble7", "deep").split("\n\n")[1].splitlines()
    script = f"import runner\nprint({call})\nprint({table})"
    shown = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True)
    assert shown.returncode == 0 and "weak film" in shown.stdout and "deep" in shown.stdout, shown.stderr
