"""Names at every place where users name things: each works all the way to the table, or is refused with its place."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.cli.app import cli
from runner.errors import MtrunError
from runner.results.table import FACTS
from runner.specs.names import COLUMNS, FILES, FOLDERS, MODULE
from runner.specs.toml_errors import written, written_key

SUITE = '''kind = "suite"
type = "files"
name = {suite}
folder = "data"
[tasks.{task}]
title = {title}
kind = "binary"
columns = [{column}]
label = {label}
id = {id}
train = "train.csv"
dev = "dev.csv"
'''
PROFILE = '''suite = "../suites/mine.toml"
[encoder]
type = "minbert"
init = "scratch"
width = 8
layers = 1
attention_heads = 2
vocabulary = 100
max_length = 16
[optimizer]
type = "adamw"
lr = 1e-3
[schedule]
type = "constant"
[train]
epochs = 1
batch_size = 4
steps = 1
[combiner]
type = "sum"
'''
PLACES = {"spec": "m", "name": "", "suite": "mine", "task": "t", "title": "T", "column": "text", "label": "label",
          "id": "id", "profile": "demo"}
ORDINARY = ["costs", "overall", "name", "keys", "a.b", "_x", "published", "report.html", "a b", "a,b", "é", "a|b",
            "ids"]
HOSTILE = [
    *ORDINARY, *FILES, *FOLDERS, *COLUMNS, *sorted(MODULE), "Costs", "OVERALL", "a/b", "..", ".", "", "-x", "--help",
    ".hidden", "scores", "dev", "train", "test", "task", "text", "node", "a=b", "a@b", "a+b", "名", "a\nb", "\x00",
    "x" * 129, "x" * 300, "runner", "torch", "heads", "encoder", "None", "nan", "0", "1e3", "true", "|", "<b>", "$x",
    "`x`", "*", "~", "%s", "{x}", "con", "run:abc", "history", "model", "manifest", "predictions", "pictures", "self",
    "interval", "p", "names", "roles", "tree", "sweep", "extends", "tasks", "settings", "index", "label", "sentence",
]


def written_project(root: Path, **names: str) -> Path:
    """Write a project of one task in which the given things are called so; return the path of its spec."""
    called = PLACES | names
    (root / "specs" / "profiles").mkdir(parents=True)
    (root / "specs" / "suites").mkdir()
    (root / "data").mkdir()
    suite = SUITE.format(task=written_key(called["task"]), **{key: written(called[key]) for key in (
        "suite", "title", "column", "label", "id")})
    (root / "specs" / "suites" / "mine.toml").write_text(suite)
    (root / "specs" / "profiles" / f"{called['profile']}.toml").write_text(PROFILE)
    for split in ("train", "dev"):
        header = "\t".join(called[key] for key in ("id", "column", "label"))
        rows = "".join(f"{split}{n}\tin {split} {'good' if n % 2 else 'bad'} {n}\t{n % 2}\n" for n in range(6))
        (root / "data" / f"{split}.csv").write_text(f"{header}\n{rows}")
    spec = root / "specs" / f"{called['spec']}.toml"
    name = f"name = {written(called['name'])}\n" if called["name"] else ""
    spec.write_text(f'kind = "model"\n{name}[heads.{written_key(called["task"])}]\ntype = "linear"\nloss = "bce"\n')
    return spec


def outcome(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, list(arguments))
    if result.exception and not isinstance(result.exception, SystemExit):
        assert isinstance(result.exception, MtrunError), result.exception
        return result.exception.exit_code, result.exception.render()
    return result.exit_code, result.output


def is_right(root: Path, monkeypatch: pytest.MonkeyPatch, place: str, name: str) -> bool:
    """Tell whether a name works from `check` to the table; else it must be refused by `check` with a place."""
    try:
        spec = written_project(root, **{place: name})
    except (OSError, ValueError):
        return False  # the file system refuses it
    monkeypatch.chdir(root)
    profile = f"--profile={name}" if place == "profile" else "--profile=demo"
    code, text = outcome("check", profile, "--", str(spec))
    if code:
        assert code == 2 and "error: " in text and "bug" not in text, (place, name, text)
        return False
    code, text = outcome("build", profile, "--executor", "inline", "--", str(spec))
    assert code == 0, (place, name, text)
    (result,) = [path for path in (root / "results").glob("*/*.json") if path.stem not in FILES]
    scores = json.loads(result.read_text())["tree"]["scores"]["dev"]
    assert len(scores) == 2 and (place != "task" or name in scores)
    for command in (("table", "--format", "json"), ("table", "--format", "csv"), ("table",), ("report",), ("ls",)):
        code, text = outcome(*command)
        assert code == 0, (place, name, command, text)
    return True


@pytest.mark.parametrize("names", [ORDINARY, pytest.param(HOSTILE, marks=pytest.mark.long)], ids=["few", "all"])
@pytest.mark.parametrize("place", [place for place in PLACES if place != "name"])
def test_ours_as_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, names: list[str]) -> None:
    """Keys, attributes and files of mtrun and of torch as names of the user's own."""
    worked = [name for number, name in enumerate(names)
              if is_right(tmp_path / str(number), monkeypatch, place, name)]
    assert len(worked) >= 3
    refused = {"spec": FILES, "profile": FOLDERS[:2], "task": ("overall", "name", "keys", "a.b", "_x")}.get(place, ())
    assert not {*refused} & {*worked}


def test_the_lists_are_those_of_torch_and_of_tables() -> None:
    code = "import torch; print(*(name for name in dir(torch.nn.ModuleDict()) if not name.startswith('_')))"
    public = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {*public} <= MODULE  # in a process of its own: some libraries give modules more attributes
    assert {*FACTS} <= {*COLUMNS}


@pytest.mark.long
@settings(max_examples=150)
@given(place=st.sampled_from([place for place in PLACES if place != "name"]),
       name=st.text(st.characters(exclude_categories=["Cs"]), max_size=12))
def test_any_text_as_a_name(tmp_path_factory: pytest.TempPathFactory, place: str, name: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        is_right(tmp_path_factory.mktemp("p") / "q", patch, place, name)
