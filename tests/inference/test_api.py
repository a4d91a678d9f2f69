"""The names for notebooks: what they return is what the commands print."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from projects import SUM, project
from systems import mtrun

import runner
from runner.errors import SpecError, UsageError


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    code = ("import sys, runner; assert 'load' in dir(runner); before = set(sys.modules); runner.load; "
            "print('runner.notebook' in before, *sorted({'torch', 'pandas', 'scipy'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = runner.lod  # type: ignore[attr-defined]


def test_a_spec_is_built_looked_at_and_asked(tmp_path: Path) -> None:
    root = project(tmp_path)
    one = runner.load(root / "specs" / "sum.toml", settings={"train.epochs": 1, "train.tasks": ["sentiment"]})
    with pytest.raises(UsageError, match="1 of 1 runs are not trained yet"):
        one.predictions()
    assert one.build() is one
    published = json.loads((root / "results" / "demo" / "sum@epochs=1,tasks=sentiment.json").read_bytes())["tree"]
    frame = one.predictions("test")
    said = frame[frame.task == "sentiment"]
    assert (said.said == said.label).mean() == pytest.approx(published["scores"]["test"]["sentiment"], abs=1e-6)
    similar = frame[frame.task == "similarity"]
    found = np.corrcoef(similar.said, similar.label)[0, 1]
    assert found == pytest.approx(published["scores"]["test"]["similarity"], abs=1e-6)
    assert one.predictions("train").empty


def test_answers_are_those_of_the_command(trained: Path) -> None:
    one = runner.load(trained / "specs" / "deep.toml")
    frame = one.predict(["A fine film.", "Bad ||| worse."], pairs=[("a", "b")], members=True)
    printed = mtrun(trained, "predict", "specs/deep.toml", "A fine film.", "--pair", "a", "b", "--format", "json")
    first, second = map(json.loads, printed.out.splitlines())
    top = frame[frame.node == ""]
    assert list(top.task) == ["sentiment", "sentiment", "paraphrase", "similarity"]
    assert list(top.sentence)[:2] == ["A fine film.", "Bad ||| worse."], "nothing is cut in two"
    assert top.said.iloc[0] == first["answers"]["sentiment"]["label"]
    assert top.said.iloc[3] == second["answers"]["similarity"]["label"]
    assert set(frame[frame.task == "similarity"].node) == {"", "mean", "mean/sum", "mean/pcgrad"}


@pytest.mark.parametrize("split", ["dev", "test"])
def test_the_table_is_the_leaderboard(trained: Path, split: str) -> None:
    frame = runner.table(trained / "results", split)
    (printed,) = json.loads(mtrun(trained, "table", "--format", "json", "--split", split).out)
    assert list(frame.name) == [row["name"] for row in printed["rows"]]
    assert {"deep", "mean", "sum", "pcgrad"} == set(frame.name)
    assert list(frame.overall) == [row["overall"] for row in printed["rows"]]
    scores = json.loads((trained / "results" / "demo" / "deep.json").read_bytes())["tree"]["scores"]
    deep = frame.set_index("name").loc["deep"]
    if split == "test":
        assert deep.sentiment == scores["test"]["sentiment"] and deep.overall == scores["test"]["overall"]
    assert list(runner.table(trained / "results", split, "pc*").name) == ["pcgrad"]


def test_what_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    root = project(tmp_path, seeds=SUM + '[sweep]\n"train.seed" = [1, 2]\n', wrong=SUM + "[train]\nepoch = 3\n")
    with pytest.raises(UsageError, match="has 2 systems: seeds@seed=1, seeds@seed=2"):
        runner.load(root / "specs" / "seeds.toml")
    with pytest.raises(SpecError, match="epoch"):
        runner.load(root / "specs" / "wrong.toml")
