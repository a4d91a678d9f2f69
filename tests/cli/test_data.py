"""`mtrun data`: what it prints, for people in 80 columns and for programs, and what it does without."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from projects import project, write

from runner.cli import app

SUITE = '''kind = "suite"
type = "files"
folder = "data"
bad_rows = "drop"

[tasks.sentiment]
title = "Moods"
kind = "classification"
labels = ["calm", "glad", "sad"]
columns = ["text"]
label = "mood"
train = "moods.csv"
dev = "dev.csv"
test = "test.csv"
'''
TRAIN = """id,text,mood
1,a day,calm
2,a day,glad
3,[bold]one[/bold] :smile:,sad
4,lost,none
5,five words in a row,sad
"""
DEV = "id,text,mood\n6,a day,calm\n7,new,glad\n"
TEST = "id,text\n8,hidden\n"


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a project with a suite in which everything is wrong that can be, and go there."""
    own = ('kind = "model"\nsuite = "suites/own.toml"\nencoder.max_length = 4\nschedule = "constant"\n'
           'combiner = "sum"\n[heads.sentiment]\ntype = "linear"\nloss = "cross_entropy"\n')
    root = project(tmp_path, own=own, tree='kind = "ensemble"\n[tree]\ntype = "average"\nmembers = ["own.toml"]\n')
    write(root, {"specs/suites/own.toml": SUITE, "data/moods.csv": TRAIN, "data/dev.csv": DEV, "data/test.csv": TEST,
                 "specs/profiles/bare.toml": 'suite = "../suites/own.toml"\n'})
    monkeypatch.chdir(root)
    return root


def data(*arguments: str, width: int = 80) -> Result:
    return CliRunner(env={"COLUMNS": str(width)}).invoke(app.cli, ["data", *arguments])


def tasks(*arguments: str) -> dict[str, dict[str, Any]]:
    return {task["task"]: task for task in map(json.loads, data(*arguments, "--json").stdout.splitlines())}


def test_the_page_says_all_in_eighty_columns(made: Path) -> None:
    done = data("specs/own.toml", "--examples", "2")
    assert done.exit_code == 0 and max(map(len, done.stdout.splitlines())) <= 80
    text = " ".join(done.stdout.split())
    for words in ("sentiment (Moods): one of 3 classes, for a sentence", "train 4 1 ", "over 4", "moods.csv",
                  "sad 2 (50.0%) 0 (0.0%) —", "train: 2 sentences are cut, such as that of id 3",
                  "train: 1 example has the sentences of an earlier one, such as 2 of 1", "dev: no example of `sad`",
                  "test: its labels are not known",
                  "dev: 1 example has the sentences of an example in train, such as id 6",
                  "1 sentence has several labels, such as id 1 in train (`calm`) and id 2 in train (`glad`)",
                  "train 3 sad [bold]one[/bold] :smile:", "test 8 — hidden"):
        assert words in text
    assert "tokens of the encoder `minbert`, which cuts what is longer than 4" in done.stderr


def test_a_suite_a_model_and_an_ensemble_show_the_same_examples(made: Path) -> None:
    shown = [tasks(f"specs/{name}.toml") for name in ("suites/own", "own", "tree")]
    assert [each["sentiment"]["limit"] for each in shown] == [512, 4, 4]
    assert shown[1] == shown[2]
    for each in shown:
        train = each["sentiment"]["splits"]["train"]
        assert train["classes"] == {"calm": 1, "glad": 1, "sad": 2} and train["dropped"] == 1
    assert {*tasks("specs/sum.toml")} == {"sentiment", "paraphrase", "similarity"}
    assert "examples" not in shown[0]["sentiment"]
    chosen = tasks("specs/own.toml", "--examples", "9")["sentiment"]["examples"]
    assert [row["label"] for row in chosen["train"]] == ["calm", "glad", "sad", "sad"]
    assert chosen["test"] == [{"id": "8", "sentences": ["hidden"], "label": None}]


def test_without_an_encoder_lengths_are_in_words_and_torch_is_not_imported(made: Path) -> None:
    bare = tasks("specs/suites/own.toml", "--profile", "bare")["sentiment"]
    assert (bare["unit"], bare["splits"]["train"]["lengths"]["longest"]) == ("words", 5)
    code = ("import sys\nfrom runner.cli import main\n"
            "try:\n    main(['data', 'specs/suites/own.toml', *sys.argv[1:]])\n"
            "finally:\n    print('torch' in sys.modules)")
    for options in ([], ["--profile", "bare"]):
        done = subprocess.run([sys.executable, "-c", code, *options], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "False"
    assert "in words, since neither" in done.stderr


def test_weights_that_are_not_there_are_no_obstacle(made: Path) -> None:
    far = 'encoder = {type = "minbert", init = "nowhere"}\n'
    write(made, {"specs/profiles/far.toml": far})
    done = data("specs/suites/own.toml", "--profile", "far")
    assert done.exit_code == 0 and "in words, since the encoder has no tokenizer here" in done.stderr


def test_settings_hold_for_a_suite_and_its_errors_have_a_place(made: Path) -> None:
    done = data("specs/suites/own.toml", "--set", "suite.bad_rows=error")
    (problem,) = done.exception.problems  # type: ignore[union-attr]
    assert "`none` in `mood`" in problem.message and problem.place.line == 5
    (made / "specs" / "suites" / "own.toml").write_text(SUITE.replace("folder", "foldr"))
    (problem,) = data("specs/suites/own.toml").exception.problems  # type: ignore[union-attr]
    assert str(problem.place) == "specs/suites/own.toml:3" and problem.hint == "did you mean `folder`?"


def test_what_has_no_data_is_said(made: Path) -> None:
    write(made, {"specs/stored.toml": 'kind = "ensemble"\n[tree]\ntype = "average"\nmembers = ["scores.csv"]\n',
                 "specs/scores.csv": "split,task,id\n"})
    assert "has no model that would tell its suite" in str(data("specs/stored.toml").exception)
    assert "no file `specs/suits.toml`" in str(data("specs/suits.toml").exception)
