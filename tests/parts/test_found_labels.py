"""Labels that are found in train: as if the suite named them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from projects import project, write

from runner.errors import MtrunError, SpecError
from runner.plan.planner import make_plan
from runner.specs.loader import Loader

TASK = """kind = "suite"
type = "files"
folder = "data"
[tasks.sentiment]
title = "Topic"
kind = "{kind}"
columns = ["text"]
label = "topic"
train = "rows.jsonl"
dev = 0.25
{labels}
"""


PROFILE = """suite = "../suites/tiny.toml"
encoder = {type = "minbert", init = "scratch", width = 16, layers = 1, attention_heads = 2, vocabulary = 99}
optimizer = {type = "adamw", lr = 0.01}
schedule = "constant"
"""


def planned(root: Path, kind: str, topics: list[object], labels: str) -> tuple[str, tuple[str, ...], list[str]]:
    """Return the id of a model, the names of its classes, and the notes of its plan."""
    write(root, {"specs/suites/tiny.toml": TASK.format(kind=kind, labels=labels), "data/rows.jsonl": "".join(
        json.dumps({"text": f"text {i}", "topic": topics[i % len(topics)]}) + "\n" for i in range(40))})
    loss = "cross_entropy" if kind == "classification" else "bce"
    write(root, {"specs/profiles/own.toml": PROFILE,
                 "specs/x.toml": f'kind = "model"\n[heads.sentiment]\ntype = "linear"\nloss = "{loss}"\n'})
    plan = make_plan(root, [root / "specs" / "x.toml"], "own")
    ((id, node),) = plan.nodes.items()
    return id, node.spec.model.suite.meanings()["sentiment"].names, plan.notes  # type: ignore[union-attr]


@pytest.mark.parametrize(("kind", "topics", "names"), [
    ("classification", ["sport", "arts", "news"], ("arts", "news", "sport")),
    ("classification", [10, 9, 1], ("1", "9", "10")),
    ("binary", ["spam", "ham"], ("ham", "spam")),
    ("multilabel", [["b", "a"], [], ["c"]], ("a", "b", "c")),
], ids=["words", "numbers", "binary", "several"])
def test_found_labels_are_those_that_could_be_named(tmp_path: Path, kind: str, topics: list[object],
                                                    names: tuple[str, ...]) -> None:
    root = project(tmp_path)
    found = planned(root, kind, topics, "find_labels = true")
    assert found[1] == names
    assert any(f"labels of `sentiment`, found in train: {', '.join(names)}" in note for note in found[2])
    named = planned(root, kind, topics, f"labels = {json.dumps(names)}")
    assert named[:2] == found[:2] and not any("found in train" in note for note in named[2])


def test_a_file_that_is_missing_and_labels_that_do_not_fit_are_told(tmp_path: Path) -> None:
    root = project(tmp_path)
    with pytest.raises(MtrunError) as raised:
        planned(root, "binary", ["a", "b", "c"], "find_labels = true")
    assert "expected 2" in raised.value.render() or "has the label" in raised.value.render()
    (root / "data" / "rows.jsonl").unlink()
    with pytest.raises(MtrunError, match=r"no data file rows\.jsonl"):
        make_plan(root, [root / "specs" / "x.toml"], "own")


def test_a_regression_has_no_labels_to_find(tmp_path: Path) -> None:
    root = project(tmp_path)
    write(root, {"specs/suites/tiny.toml": TASK.format(kind="regression", labels="find_labels = true"),
                 "specs/profiles/own.toml": PROFILE})
    with pytest.raises(SpecError, match="for one column of labels"):
        Loader(root, "own").suite()
