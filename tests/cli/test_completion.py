"""Completion in a shell: what is offered, that it comes quickly, and that nothing slow is imported for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runner.cli import app, build, completion, scaffold
from runner.cli.schema import Schemas

SPECS = ["specs/base.toml", "specs/ensemble.toml", "specs/pcgrad.toml", "specs/sum.toml"]
RUNS = {"00aabbccddee": "sum", "00ff00ff00ff": "pcgrad", "123456789abc": ""}


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a project with a few runs and go there."""
    scaffold.init(tmp_path, Schemas().files())
    for name, called in RUNS.items():
        (tmp_path / "registry" / name).mkdir()
        if called:
            (tmp_path / "registry" / name / "manifest.json").write_text(json.dumps({"name": called}))
    (tmp_path / "specs" / "models").mkdir()
    (tmp_path / "specs" / "models" / "deep.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def offered(function: object, word: str) -> list[str]:
    """Return what a function offers for a word."""
    context = app.cli.make_context("mtrun", ["plan", "x"])
    found = function(context, build.build.params[0], word)  # type: ignore[operator]
    return [item if isinstance(item, str) else item.value for item in found]


@pytest.mark.parametrize(("here", "word", "expected"), [
    (".", "", [*SPECS[:2], "specs/models/deep.toml", *SPECS[2:]]),
    (".", "specs/m", ["specs/models/deep.toml"]),
    (".", "specs/models/", ["specs/models/deep.toml"]),
    (".", "specs/su", ["specs/sum.toml"]),
    (".", "./specs/su", ["./specs/sum.toml"]),
    (".", "nothing", []),
    (".", "specs/profiles/", ["specs/profiles/demo.toml", "specs/profiles/mine.toml"]),
    ("specs", "", ["base.toml", "ensemble.toml", "models/deep.toml", "pcgrad.toml", "sum.toml"]),
    ("specs", "mod", ["models/deep.toml"]),
    ("specs/models", "../p", ["../pcgrad.toml"]),
])
def test_specs_that_can_be_built(made: Path, here: str, word: str, expected: list[str]) -> None:
    os.chdir(made / here)
    assert offered(completion.complete_specs, word) == expected


def test_specs_by_absolute_paths(made: Path) -> None:
    assert offered(completion.complete_specs, f"{made}/specs/s") == [f"{made}/specs/sum.toml"]


def test_profiles_and_runs_from_anywhere_in_the_project(made: Path) -> None:
    os.chdir(made / "specs" / "models")
    assert offered(completion.complete_profiles, "") == ["demo", "mine"]
    assert offered(completion.complete_profiles, "m") == ["mine"]
    assert offered(completion.complete_runs, "") == sorted(RUNS)
    assert offered(completion.complete_runs, "00") == ["00aabbccddee", "00ff00ff00ff"]
    assert offered(completion.complete_runs, "*") == offered(completion.complete_runs, "00aabbccddeeff") == []
    context = app.cli.make_context("mtrun", ["plan", "x"])
    assert [item.help for item in completion.complete_runs(context, build.build.params[0], "")] == list(RUNS.values())


def test_keys_to_set(made: Path) -> None:
    assert offered(completion.complete_settings, "train.e") == ["train.epoch", "train.epochs"]
    keys = offered(completion.complete_settings, "")
    assert {"combiner.type", "encoder.width", "heads.", "optimizer.lr_scale", "suite.train", "train.seed"} <= set(keys)
    assert not {"kind", "name", "extends", "description", "combiner"} & set(keys)
    (made / "specs" / ".schema" / "profile.json").write_text("{")
    assert offered(completion.complete_settings, "") == []


def test_outside_of_a_project_there_is_nothing_to_offer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for complete in (completion.complete_specs, completion.complete_profiles, completion.complete_runs,
                     completion.complete_settings):
        assert offered(complete, "") == []


def test_a_large_folder_is_not_walked_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.toml").write_text("")
    (tmp_path / "b").mkdir()
    for number in range(completion._MOST):
        (tmp_path / "b" / f"{number}.toml").write_text("")
    assert offered(completion.complete_specs, "") == ["a.toml"]


def asked(shell: str, line: str, *options: str) -> list[str]:
    """Return what mtrun answers to a shell, as its lines."""
    words = line.split(" ")
    environment = os.environ | {"_MTRUN_COMPLETE": f"{shell}_complete", "COMP_WORDS": line,
                                "COMP_CWORD": words[-1] if shell == "fish" else str(len(words) - 1)}
    code = "import sys; sys.argv = ['mtrun']; from runner.cli import main; main()"
    done = subprocess.run([sys.executable, *options, "-c", code], env=environment, capture_output=True, text=True)
    return [*done.stdout.splitlines(), *done.stderr.splitlines()]


@pytest.mark.parametrize(("line", "expected"), [
    ("mtrun build specs/s", "plain,specs/sum.toml"),
    ("mtrun check specs/s", "plain,specs/sum.toml"),
    ("mtrun plan --profile m", "plain,mine"),
    ("mtrun build --set train.epochs", "plain,train.epochs"),
    ("mtrun new sch", "plain,schedule"),
    ("mtrun sche", "plain,schema"),
])
def test_a_shell_gets_an_answer_without_slow_imports(made: Path, line: str, expected: str) -> None:
    assert asked("bash", line) == [expected]
    imported = {name.rpartition("|")[2].strip() for name in asked("bash", line, "-X", "importtime")}
    assert "click" in imported and not imported & {"torch", "numpy", "pydantic"}


@pytest.mark.parametrize(("shell", "expected"), [("zsh", ["plain", "mine", "_"]), ("fish", ["plain", "mine"])])
def test_other_shells_get_it_in_their_form(made: Path, shell: str, expected: list[str]) -> None:
    answer = asked(shell, "mtrun plan --profile m")
    assert [word for text in answer for word in text.split(",")] == expected
