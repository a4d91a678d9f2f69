"""A project of one's own: several labels, weights, joined columns, folds and metrics, in every command."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from projects import write

from runner.cli.app import main

WORDS = {"sport": ["match", "goal", "team"], "arts": ["opera", "novel", "film"], "news": ["vote", "senate", "law"]}

SUITE = """kind = "suite"
type = "files"
folder = "data"
[tasks.tags]
title = "Tags"
kind = "multilabel"
labels = ["sport", "arts", "news"]
columns = [["title", "body"]]
label = "tags"
weight = "weight"
train = "tags.jsonl"
dev = {fold = 1, folds = 4}
test = 0.1
metrics = ["macro_f1", "auroc", "accuracy"]
[tasks.first]
title = "First"
kind = "classification"
labels = ["arts", "news", "none", "sport"]
columns = ["body"]
label = "first"
train = "tags.jsonl"
dev = 0.2
counts = false
"""

PROFILE = """suite = "../suites/mine.toml"
[encoder]
type = "minbert"
init = "scratch"
width = 16
layers = 1
attention_heads = 2
intermediate = 16
vocabulary = 200
pooling = "mean"
dropout = 0.0
hidden_dropout = 0.0
[optimizer]
type = "adamw"
lr = 0.01
[schedule]
type = "linear"
[train]
epochs = 2
batch_size = 16
[heads.tags]
type = "linear"
loss = "bce"
[heads.first]
type = "linear"
loss = {type = "focal", class_weights = "balanced"}
"""

SPECS = {
    "mtrun.toml": 'profile = "mine"\n', "specs/suites/mine.toml": SUITE, "specs/profiles/mine.toml": PROFILE,
    "specs/one.toml": 'kind = "model"\n',
    "specs/two.toml": 'kind = "model"\n[train]\nseed = 2\nselect_by = "tags.auroc"\n',
    "specs/fold.toml": 'kind = "model"\n[sweep]\n"suite.tasks.tags.dev.fold" = [2]\n',
    "specs/tree.toml": 'kind = "ensemble"\n[tree]\ntype = "stack"\nmembers = ["one.toml", "two.toml"]\n',
    "specs/student.toml": 'kind = "model"\n[teacher]\nspec = "tree.toml"\n',
}


def rows() -> str:
    draw, lines = random.Random(1), []
    for _ in range(240):
        tags = [name for name in WORDS if draw.random() < 0.4]
        words = [draw.choice(WORDS[name]) for name in tags for _ in range(2)] + ["the", "a", "of"]
        draw.shuffle(words)
        lines.append(json.dumps({"title": words[0], "body": " ".join(words[1:]), "tags": tags,
                                 "weight": draw.choice([1, 2]), "first": tags[0] if tags else "none"}))
    return "\n".join(lines) + "\n"


def test_from_files_with_several_labels_to_every_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                         capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, {**SPECS, "data/tags.jsonl": rows()})
    monkeypatch.chdir(tmp_path)

    def said(*arguments: str) -> str:
        with pytest.raises(SystemExit) as stopped:
            main(list(arguments))
        printed = capsys.readouterr()
        assert stopped.value.code == 0, printed.err
        return printed.out

    assert "any of 3 labels" in said("data", "specs/one.toml")
    said("build", "specs/tree.toml", "specs/student.toml", "specs/fold.toml", "-q")
    tables = json.loads(said("table", "--format", "json"))
    assert len(tables) == 2, "another fold is another suite"
    by_name = {row["name"]: row for table in tables for row in table["rows"]}
    assert by_name.keys() == {"one", "two", "tree", "student", "fold@fold=2"}
    for row in by_name.values():
        assert row["overall"] == row["tags"] and row["tags.low"] <= row["tags"] <= row["tags.high"]
        assert {"tags.auroc", "tags.accuracy", "first"} <= row.keys() and row["tags"] > 0.3
    answers = json.loads(said("predict", "specs/tree.toml", "title: opera body: goal the team film", "--format", "json",
                              "--task", "tags"))["answers"]["tags"]
    assert {*answers["label"]} <= {*WORDS} and len(answers["probabilities"]) == 3
    (_, row) = said("predict", "specs/tree.toml", "the opera", "--format", "csv", "--task", "tags").splitlines()
    assert row.split(",")[3] in ("", *WORDS, *(f"{a}|{b}" for a in WORDS for b in WORDS))
    assert "Shapley value" in said("members", "specs/tree.toml")
    said("report")
    page = (tmp_path / "results" / "report.html").read_text()
    assert "wrongly given" in page and "Tags AUROC" in page
    said("export", "specs/tree.toml", "-o", "tree.zip")
    said("reproduce", "tree.zip")  # it fails where a number differs
