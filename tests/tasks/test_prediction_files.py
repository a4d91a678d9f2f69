"""Predictions files of other programs: read as they were meant, or refused with file and line; then leaves."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy as tensor_file
from builds import built
from projects import project

from runner.errors import DataError, SpecError
from runner.parts.suites.demo import Demo
from runner.plan.planner import make_plan
from runner.registry.registry import Registry
from runner.results.result import Result
from runner.tasks.data import Task
from runner.tasks.prediction_files import probabilities, read
from runner.tasks.predictions import Output, Predictions

DATA = Demo(train=10, dev=8, test=6).load(Path())
HEADER = ["split", "task", "id", *(f"score_{i}" for i in range(5))]


def predictions(seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    return Predictions({split: {task: Output(DATA.splits[task][split].ids, rng.standard_normal(
        (len(DATA.splits[task][split]), DATA.tasks[task].outputs)).astype(np.float32)) for task in DATA.tasks}
        for split in ("dev", "test")})


def rows_of(said: Predictions) -> list[list[str]]:
    return [[split, task, name, *map(str, scores), *[""] * (5 - len(scores))]
            for split, by_task in said.outputs.items() for task, output in by_task.items()
            for name, scores in zip(output.ids, output.scores.tolist(), strict=True)]


def text(rows: list[list[str]], header: list[str] = HEADER, delimiter: str = ",") -> str:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerows([header, *rows])
    return out.getvalue()


def problems(tmp_path: Path, content: str | bytes, name: str = "theirs.csv") -> str:
    """Return what is said of a wrong file."""
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataError) as caught:
        read(path, name, DATA)
    assert caught.value.exit_code == 2
    return caught.value.render()


@pytest.mark.parametrize("seed", range(3))
def test_rows_and_columns_in_any_order_mean_the_same(tmp_path: Path, seed: int) -> None:
    said, dice = predictions(seed), random.Random(seed)
    rows = rows_of(said)
    dice.shuffle(rows)
    columns = [*range(8), 8]
    dice.shuffle(columns)
    rows = [[[*row, "what they say"][c] for c in columns] for row in rows]
    header = [[*HEADER, "sentence"][c] for c in columns]
    for delimiter in ",\t":
        path = tmp_path / "theirs.csv"
        path.write_text("\ufeff" + text(rows, header, delimiter))
        assert read(path, "theirs.csv", DATA).to_bytes() == said.to_bytes()


def test_one_column_of_scores_is_called_score(tmp_path: Path) -> None:
    path = tmp_path / "theirs.csv"
    ids = DATA.splits["paraphrase"]["dev"].ids
    path.write_text(text([["dev", "paraphrase", name, "1e-3"] for name in ids], ["split", "task", "id", "score"]))
    said = read(path, "theirs.csv", DATA)
    assert {split: set(by) for split, by in said.outputs.items()} == {"dev": {"paraphrase"}}
    assert said.outputs["dev"]["paraphrase"].scores[:, 0].tolist() == [np.float32(1e-3)] * 8


def test_safetensors_of_the_registry_are_read(tmp_path: Path) -> None:
    path, said = tmp_path / "p.safetensors", predictions()
    turned = Predictions({s: {t: Output(o.ids[::-1], o.scores[::-1]) for t, o in by.items()}
                          for s, by in said.outputs.items()})
    path.write_bytes(turned.to_bytes())
    assert read(path, "p", DATA).to_bytes() == said.to_bytes()


def changed(change: Callable[[list[list[str]]], object]) -> str:
    rows = rows_of(predictions())
    change(rows)
    return text(rows)


@pytest.mark.parametrize(("change", "wanted"), [
    (lambda rows: rows.pop(3), ["theirs.csv\n", "1 of the suite's dev examples of `sentiment` are missing", "`dev-3`"]),
    (lambda rows: rows[2].__setitem__(2, "dev-77"), ["theirs.csv:4", "the id `dev-77` is not in the suite's dev"]),
    (lambda rows: rows[2].__setitem__(2, "dev-0"), ["theirs.csv:4", "stands twice in dev", "first in line 2"]),
    (lambda rows: rows[2].__setitem__(3, "high"), ["theirs.csv:4", "`high` is not a number"]),
    (lambda rows: rows[2].__setitem__(3, "nan"), ["theirs.csv:4", "`nan` is not a number"]),
    (lambda rows: rows[2].__setitem__(3, "1e39"), ["theirs.csv:4", "`1e39` is not a number that can be kept"]),
    (lambda rows: rows[2].__setitem__(7, ""), ["theirs.csv:4", "expected 5 scores for `sentiment`, not 4"]),
    (lambda rows: rows[9].__setitem__(4, "1.0"), ["theirs.csv:11", "expected 1 score for `paraphrase`, not 2"]),
    (lambda rows: rows[9].__setitem__(1, "paraphase"), ["theirs.csv:11", "did you mean `paraphrase`?"]),
    (lambda rows: rows[9].__setitem__(0, "devel"), ["theirs.csv:11", "unknown split `devel`", "did you mean `dev`?"]),
    (lambda rows: rows[9].__delitem__(slice(4, None)), ["theirs.csv:11", "row has 4 cells, where the header has"]),
], ids=["missing", "foreign", "twice", "word", "nan", "large", "few", "many", "task", "split", "short"])
def test_a_wrong_row_is_named_with_its_line(tmp_path: Path, change: Callable[[list[list[str]]], object],
                                            wanted: list[str]) -> None:
    said = problems(tmp_path, changed(change))
    assert all(words in said for words in wanted), said


@pytest.mark.parametrize(("content", "wanted"), [
    ("", "no column `split`"), (text([]), "it holds no predictions"),
    (text([], ["split", "task", "ids", "score"]), "did you mean `ids`?"),
    (text([], ["split", "task", "id", "score_0", "score_2"]), "no column `score_1`"),
    (text([], ["split", "task", "id", "id", "score"]), "more than one column `id`"),
    (b"split,task,id,score\n\xff\xfe", "not UTF-8 at byte 1"), ('split,task,id,score\n"a', "a quote is opened"),
])
def test_a_file_of_another_form_is_refused(tmp_path: Path, content: str | bytes, wanted: str) -> None:
    assert wanted in problems(tmp_path, content)


def test_all_problems_are_said_at_once_and_a_foreign_safetensors_file_is_named(tmp_path: Path) -> None:
    both = changed(lambda rows: [rows[1].__setitem__(3, "x"), rows[5].__setitem__(2, "y")])
    assert problems(tmp_path, both).count("error:") == 2
    said = predictions()
    for outputs, wanted in (({"dev": {"toxicity": said.outputs["dev"]["similarity"]}}, "unknown task `toxicity`"),
                            ({"dev": {"sentiment": said.outputs["dev"]["similarity"]}}, "the task has 5"),
                            ({"dev": {"similarity": said.outputs["test"]["similarity"]}}, "are not for this suite's")):
        assert wanted in problems(tmp_path, Predictions(outputs).to_bytes(), "p.safetensors")
    assert "cannot be used" in problems(tmp_path, b"{", "p.safetensors")


# --------------------------------------------------------------------------------------------------------- in a project

TREE = '''
kind = "ensemble"
[tree]
type = "average"
members = ["theirs.csv", { type = "best", members = ["theirs.csv", "sum.toml"] }]
'''
ALONE = '''
kind = "ensemble"
[tree]
type = "average"
members = ["theirs.csv"]
'''


def test_a_predictions_file_is_a_leaf_like_any_other(tmp_path: Path) -> None:
    """What another program says, here the model's own predictions, is in a tree, by itself, and under another name."""
    root = project(tmp_path, tree=TREE, alone=ALONE)
    built(root, "sum")
    (run,) = Registry(root / "registry").runs()
    rows = rows_of(run.predictions())
    (root / "specs" / "theirs.csv").write_text(text(rows))
    first = make_plan(root, [root / "specs" / f"{name}.toml" for name in ("tree", "alone")], "demo")
    built(root, "tree", "alone")
    results = {name: Result.from_json((root / "results" / "demo" / f"{name}.json").read_bytes(), name).tree
               for name in ("sum", "alone", "tree")}
    assert results["alone"].scores == results["sum"].scores == results["tree"].scores
    (leaf,) = results["alone"].members
    assert (leaf.name, leaf.what, leaf.apparent) == ("theirs", "predictions of theirs.csv", False)
    assert results["alone"].honest is None and results["tree"].honest is not None
    random.Random(0).shuffle(rows)
    (root / "specs" / "theirs.csv").write_text(text(rows))
    again = make_plan(root, [root / "specs" / f"{name}.toml" for name in ("tree", "alone")], "demo")
    assert again.roots == first.roots  # the id is of what it says
    rows[0][3] = str(float(rows[0][3]) + 1)
    (root / "specs" / "theirs.csv").write_text(text(rows))
    assert make_plan(root, [root / "specs" / "alone.toml"], "demo").roots["alone"] != first.roots["alone"]


def test_a_file_that_does_not_suit_starts_nothing(tmp_path: Path) -> None:
    root = project(tmp_path, tree=TREE)
    (root / "specs" / "theirs.csv").write_text("split,task,id,score\ndev,similarity,dev-99,1\n")
    with pytest.raises(DataError) as caught:
        make_plan(root, [root / "specs" / "tree.toml"], "demo")
    assert "theirs.csv:2" in caught.value.render() and "used by " in caught.value.render()
    (root / "specs" / "theirs.csv").unlink()
    with pytest.raises(SpecError, match=r"no file `theirs.csv`"):
        make_plan(root, [root / "specs" / "tree.toml"], "demo")


def test_a_file_alone_needs_a_suite(tmp_path: Path) -> None:
    root = project(tmp_path, alone=ALONE)
    (root / "specs" / "theirs.csv").write_text("split,task,id,score\n")
    (root / "specs" / "profiles" / "demo.toml").write_text("[train]\nepochs = 1\n")
    with pytest.raises(SpecError, match="not known which suite `theirs` is for"):
        make_plan(root, [root / "specs" / "alone.toml"], "demo")


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_numbers_of_other_precisions_are_read(tmp_path: Path, dtype: type) -> None:
    tensors = tensor_file.load(predictions().to_bytes())
    path = tmp_path / "theirs.safetensors"
    path.write_bytes(tensor_file.save({name: array.astype(dtype) if name.endswith("scores") else array
                                       for name, array in tensors.items()}))
    for split, by_task in read(path, "theirs.safetensors", DATA).outputs.items():
        for task, output in by_task.items():
            wanted = predictions().outputs[split][task].scores.astype(dtype).astype(np.float32)
            assert output.scores.dtype == np.float32 and np.array_equal(output.scores, wanted)


def test_other_columns_are_ignored_whatever_they_are_called(tmp_path: Path) -> None:
    path = tmp_path / "theirs.csv"
    path.write_text(text([[*row, "0.5", "x"] for row in rows_of(predictions())], [*HEADER, "score_std", "scores"]))
    assert read(path, "theirs.csv", DATA).to_bytes() == predictions().to_bytes()


def test_probabilities_are_told_from_logits() -> None:
    held = predictions()
    assert probabilities(held, DATA) == []
    shares = {split: {task: Output(output.ids, shares_of(DATA.tasks[task], output.scores))
                      for task, output in by_task.items()} for split, by_task in held.outputs.items()}
    assert probabilities(Predictions(shares), DATA) == ["sentiment", "paraphrase"]


def shares_of(task: Task, scores: np.ndarray) -> np.ndarray:
    """Return what a program writes that puts out probabilities; a regression's scores as they are."""
    if task.kind == "binary":
        return (1 / (1 + np.exp(-scores))).astype(np.float32)
    return scores if task.kind == "regression" else (np.exp(scores) / np.exp(scores).sum(1, keepdims=True))
