"""Every command that shows results, on projects that are small in another way each."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from projects import SUITE, project, write
from systems import SPECS, build, mtrun

from runner.training.trainer import COMPARE_EVERY

ONE_TASK = '''
kind = "suite"
type = "files"
folder = "data"

[tasks.sentiment]
title = "Feeling"
kind = "classification"
classes = 2
columns = ["sentence"]
label = "label"
train = "train.csv"
dev = "dev.csv"
'''
COMMANDS = [
    *(("table", "results", "--format", style) for style in ("md", "csv", "json", "latex", "html", "plain")),
    ("table", "results", "--columns", "all"), ("table", "results", "--sort", "name"),
    ("report", "results"), ("report", "results", "--no-sentences"), ("plot", "results", "--png"),
    ("members", "specs/mean.toml"), ("members", "specs/mean.toml", "--prune", "1"), ("ls",), ("show", "sum"),
    ("logs", "sum"), ("diff", "sum", "pcgrad"), ("plan", "specs/mean.toml", "--graph", "text"), ("verify",),
    ("predict", "specs/mean.toml", "A film.", "--members"),
]


@pytest.fixture(scope="module", params=["13 steps an epoch", "one task", "one epoch", "one step"])
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project that is built."""
    root = project(tmp_path_factory.mktemp("small"), pcgrad=SPECS["pcgrad"], mean=SPECS["mean"])
    profile = root / "specs" / "profiles" / "demo.toml"
    if request.param == "one task":
        data = {f"data/{split}.csv": "id\tsentence\tlabel\n" + "".join(
            f"{i}\tit was {word} {'good' if i % 2 else 'bad'} film\t{i % 2}\n" for i in range(40))
            for split, word in (("train", "a"), ("dev", "one"))}
        head = '[heads.sentiment]\ntype = "linear"\nloss = "cross_entropy"\n'
        write(root, {"specs/suites/tiny.toml": ONE_TASK, **data,
                     "specs/sum.toml": f'kind = "model"\ncombiner = "sum"\nschedule = "constant"\n{head}'})
        profile.write_text(profile.read_text().partition("[heads")[0])
    if request.param == "one epoch":
        profile.write_text(profile.read_text().replace("epochs = 2", "epochs = 1"))
    if request.param in ("13 steps an epoch", "one step"):
        steps = 13 if "13" in request.param else 1
        assert steps < COMPARE_EVERY, "some epoch compares no gradients"
        write(root, {"specs/suites/tiny.toml": SUITE.replace("train = 60", f"train = {8 * steps}")})
        profile.write_text(profile.read_text().replace("epochs = 2", "epochs = 4"))
    build(root, "mean", "sum")
    return root


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_shows_it(small: Path, command: tuple[str, ...]) -> None:
    if command[0] == "plot":
        pytest.importorskip("matplotlib")
    done = mtrun(small, *command)
    assert done.code == 0, done.err
    assert "bug" not in done.err and (done.out or command[0] in ("logs", "verify"))


def test_the_page_has_the_conflict_of_epochs_that_measured_it_and_a_dash_for_others(small: Path) -> None:
    mtrun(small, "report", "results")
    page = (small / "results" / "report.html").read_text()
    runs = [[json.loads(line) for line in path.read_text().splitlines()]
            for path in (small / "registry").glob("[0-9a-f]*/history.jsonl")]
    runs = [history for history in runs if len(history) > 1]  # of one epoch there is no table
    measured = [["conflict" in entry for entry in history] for history in runs]
    assert page.count("steps in conflict</th>") == sum(map(any, measured))
    lines = [line for line in page.splitlines() if re.match(r"(<tbody>)?<tr><th scope=\"row\">\d+</th><td>", line)]
    assert len(lines) == sum(map(len, runs))
    assert sum(line.endswith("%</td></tr>") for line in lines) == sum(map(sum, measured))
    assert sum(line.endswith("<td>—</td></tr>") for line in lines) == sum(
        history.count(False) for history in measured if any(history))
