"""`mtrun init --data`: a project for files of one's own, which builds at once and shows labels by their names."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pandas as pd
import pytest

import runner
from runner.cli.own_data import _named, own_data
from runner.errors import MtrunError
from runner.parts.suites.files import Files, Source
from runner.specs.toml_errors import written

MOODS = pd.DataFrame({"text": [f"a {w} day number {n}" for n in range(20) for w in ("sad", "glad", "calm")],
                      "mood": ["sad", "glad", "calm"] * 20})
PAIRS = pd.DataFrame({"q1": [f"one {n} words" for n in range(60)], "q2": [f"two {n} words" for n in range(60)],
                      "same": [n % 2 == 0 for n in range(60)]})
SCORES = pd.DataFrame({"left": [f"one {n} words" for n in range(60)], "right": [f"two {n} words" for n in range(60)],
                       "score": [n % 11 / 2 for n in range(60)]})


ENCODER = {"type": "minbert", "init": "scratch", "width": 16, "layers": 1, "attention_heads": 2, "vocabulary": 200,
           "pooling": "pooler"}  # whose heads transformers has, too


def mtrun(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "runner", *arguments], cwd=folder, capture_output=True, text=True)


def guessed(folder: Path, *files: Path) -> dict[str, dict[str, object]]:
    tasks: dict[str, dict[str, object]] = tomllib.loads(
        own_data(folder, files)[Path("specs/suites/mine.toml")].decode())["tasks"]
    return tasks


def test_three_files_of_three_kinds_become_a_table_and_a_prediction(tmp_path: Path) -> None:
    MOODS.to_csv(tmp_path / "moods.csv", index=False)
    PAIRS.to_json(tmp_path / "pairs.jsonl", orient="records", lines=True)
    SCORES.to_parquet(tmp_path / "scores.parquet")
    files = [word for name in ("moods.csv", "pairs.jsonl", "scores.parquet") for word in ("--data", name)]
    made = mtrun(tmp_path, "init", "mine", *files)
    assert made.returncode == 0 and "`mtrun build specs/first.toml`" in made.stdout, made.stderr
    small = ["--set", f"encoder={written(ENCODER)}"]
    root = tmp_path / "mine"
    assert mtrun(root, "build", "specs/first.toml", *small).returncode == 0
    told = mtrun(root, "predict", "specs/first.toml", "a glad day", "--format", "json", *small)
    answer = json.loads(told.stdout)["answers"]["moods"]
    assert answer["label"] in {*MOODS.mood} and len(answer["probabilities"]) == 3
    assert "Moods" in mtrun(root, "table").stdout
    loaded = runner.load(root / "specs" / "first.toml", settings={"encoder": ENCODER})
    moods = loaded.predictions().query("task == 'moods'")
    assert len(moods) == 12 and {*moods.label} == {*MOODS.mood} >= {*moods.said}
    assert {*loaded.predictions().query("task == 'scores'").label} <= {*SCORES.score}
    exported = mtrun(root, "export", "specs/first.toml", "-o", "out", *small)
    assert exported.returncode == 0, exported.stderr
    config = json.loads((root / "out" / "transformers" / "config.json").read_text())
    assert config["id2label"] == {"0": "calm", "1": "glad", "2": "sad"} and config["label2id"]["sad"] == 2


def test_splits_columns_and_kinds_are_guessed(tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        MOODS.assign(text=f"{split} " + MOODS.text).to_csv(tmp_path / f"moods_{split}.tsv", sep="\t", index=False)
    stars = "".join(f"g{n},text {n},{n % 5 + 1}\n" for n in range(60))
    (tmp_path / "stars.csv").write_text(f"guid,review,stars\n{stars}")
    files = [*(tmp_path / f"moods_{split}.tsv" for split in ("test", "train", "validation")), tmp_path / "stars.csv"]
    tasks = guessed(tmp_path, *files)
    assert tasks["moods"] == {
        "title": "Moods", "kind": "classification", "labels": ["calm", "glad", "sad"], "columns": ["text"],
        "label": "mood", "train": "moods_train.tsv", "dev": "moods_validation.tsv", "test": "moods_test.tsv"}
    assert tasks["stars"] == {
        "title": "Stars", "kind": "classification", "labels": ["1", "2", "3", "4", "5"], "columns": ["review"],
        "label": "stars", "id": "guid", "train": "stars.csv", "dev": 0.2}


@pytest.mark.parametrize(("frame", "kind", "columns"), [
    (MOODS, "classification", ["text"]), (PAIRS, "binary", ["q1", "q2"]), (SCORES, "regression", ["left", "right"]),
    (MOODS.assign(label=[0, 1, 2] * 20), "classification", ["text"]),
    (MOODS.assign(label=[0, 1, 1] * 20), "binary", ["text"])])
def test_kinds_follow_from_the_labels(tmp_path: Path, frame: pd.DataFrame, kind: str, columns: list[str]) -> None:
    frame.to_csv(tmp_path / "t.csv", index=False)
    (task,) = guessed(tmp_path, tmp_path / "t.csv").values()
    assert (task["kind"], task["columns"]) == (kind, columns)


@pytest.mark.parametrize(("text", "message"), [
    ("text\nonly\ntexts\nhere\n", "no column that looks like a label"), ("label\n0\n1\n", "no column of text"),
    ("text,label\n", "has no rows below its header"), ("good,1\nbad,0\n", "has no header: its first line is good, 1"),
    ("text,label\na,x\nb,x\n", "`label` has 1 different values"), (None, "there is no file")])
def test_what_cannot_be_guessed_is_said_and_nothing_is_written(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "t.csv").write_text(text)
    with pytest.raises(MtrunError, match=message):
        own_data(tmp_path, [tmp_path / "t.csv"])
    done = mtrun(tmp_path, "init", "made", "--data", "t.csv")
    assert done.returncode in (1, 2) and message in done.stderr and not (tmp_path / "made").exists()


def test_how_tasks_are_combined_is_a_matter_of_several(tmp_path: Path) -> None:
    for name in ("moods.csv", "more.csv"):
        MOODS.to_csv(tmp_path / name, index=False)
    one, several = (own_data(tmp_path, [tmp_path / name for name in names])[Path("specs/first.toml")].decode()
                    for names in (["moods.csv"], ["moods.csv", "more.csv"]))
    assert "combine" not in one and 'combiner = "pcgrad"' in several
    assert not {"combiner"} & {*tomllib.loads(one), *tomllib.loads(several)}


def test_several_files_of_one_split_are_a_list(tmp_path: Path) -> None:
    names = {"train": ["moods-train-00000-of-00002.parquet", "moods-train-00001-of-00002.parquet"],
             "test": ["moods_test_1.csv", "moods_test_2.csv"]}
    for number, split in enumerate(("train", "test")):
        for half, name in enumerate(names[split]):
            frame = MOODS.sort_values("mood")[half * 30:][:30].assign(text=f"{number}{half} " + MOODS.text)
            frame.to_parquet(tmp_path / name) if name.endswith("parquet") else frame.to_csv(tmp_path / name)
    files = [tmp_path / name for several in names.values() for name in several]
    (task,) = guessed(tmp_path, *files, files[0]).values()
    assert (task["train"], task["test"], task["dev"]) == (names["train"], names["test"], 0.2)
    assert task["labels"] == ["calm", "glad", "sad"]  # no file has all of them
    suite = Files(tasks={"moods": Source.model_validate(task | {
        key: tuple(task[key]) for key in ("labels", "columns", "train", "test")})}, folder=str(tmp_path))
    assert {split: len(part) for split, part in suite.load(tmp_path).splits["moods"].items()} == {
        "train": 48, "dev": 12, "test": 60}


@pytest.mark.parametrize(("file", "named"), [
    ("train-a.csv", ("a", "train")), ("a.train.csv", ("a", "train")), ("sts-2012.csv", ("sts_2012", "train")),
    ("train-00000-of-00002.parquet", ("task", "train")), ("news_val_3.jsonl.gz", ("news", "dev")),
    ("20-newsgroups_test.csv", ("task_20_newsgroups", "test")), ("validation.csv", ("task", "dev"))])
def test_names_of_files_say_task_and_split(file: str, named: tuple[str, str]) -> None:
    assert _named(Path(file)) == named


def test_files_that_are_no_task_together_are_refused(tmp_path: Path) -> None:
    MOODS.to_csv(tmp_path / "train-a.csv", index=False)
    MOODS.assign(more=1).to_csv(tmp_path / "a.train.csv", index=False)
    with pytest.raises(MtrunError, match=r"a\.train\.csv has the columns text, mood, more, where .*train-a\.csv has t"):
        own_data(tmp_path, [tmp_path / "train-a.csv", tmp_path / "a.train.csv"])
    MOODS.to_csv(tmp_path / "a-test.csv", index=False)
    with pytest.raises(MtrunError, match="has no file for training"):
        own_data(tmp_path, [tmp_path / "a-test.csv"])


SETS = [["sport"], ["sport", "arts"], [], ["arts", "world news"], ["world news"], ["sport", "world news"]] * 10


@pytest.mark.parametrize(("column", "values", "reason"), [
    ("label", SETS, "lists"), ("topics", [str(names) for names in SETS], "lists"), ("anything", SETS, "lists"),
    *((name, [sign.join(names) for names in SETS], f"several names in a cell, separated by {word}")
      for name in ("labels", "subjects") for sign, word in (("|", "bars"), ("; ", "semicolons"), (",", "commas")))])
def test_several_labels_in_a_cell_are_a_multilabel_task(tmp_path: Path, column: str, values: list[object],
                                                        reason: str) -> None:
    frame = pd.DataFrame({"text": [f"a text with number {n}" for n in range(60)], column: values,
                          "words": [["a", "text", f"{n}"] for n in range(60)]})
    frame.to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    files = own_data(tmp_path, [tmp_path / "t.jsonl"])
    suite = files[Path("specs/suites/mine.toml")].decode()
    (task,) = tomllib.loads(suite)["tasks"].values()
    assert (task["kind"], task["labels"]) == ("multilabel", ["arts", "sport", "world news"])
    assert (task["columns"], task["label"]) == (["text"], column) and f"# {reason}" in suite
    assert tomllib.loads(files[Path("specs/first.toml")].decode())["heads"]["t"] == {"type": "linear", "loss": "bce"}


@pytest.mark.parametrize("values", [["1,5", "2,5", "3,5", "1,2"], ["good, really", "bad", "so so", "none"],
                                    ["a;b", "c;d", "e;f", "g;h"]])
def test_signs_in_single_labels_are_no_lists(tmp_path: Path, values: list[str]) -> None:
    frame = pd.DataFrame({"text": [f"a text with number {n}" for n in range(60)], "label": values * 15})
    frame.to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    (task,) = guessed(tmp_path, tmp_path / "t.jsonl").values()
    assert (task["kind"], task["labels"]) == ("classification", sorted(values))


def test_the_project_names_its_profile_so_that_no_command_does(tmp_path: Path) -> None:
    MOODS.to_csv(tmp_path / "moods.csv", index=False)
    mtrun(tmp_path, "init", "mine", "--data", "moods.csv")
    assert "--profile mine" not in (tmp_path / "mine" / "README.md").read_text()
    done = mtrun(tmp_path / "mine", "plan", "specs/first.toml")
    assert done.returncode == 0 and "1 to train" in done.stdout, done.stderr


@pytest.mark.parametrize("is_installed", [True, False])
def test_few_rows_are_learned_in_larger_steps_or_more_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                             is_installed: bool) -> None:
    monkeypatch.setattr("runner.cli.own_data.find_spec", lambda name: is_installed)
    MOODS.to_csv(tmp_path / "few.csv", index=False)
    pd.concat([MOODS] * 40).to_csv(tmp_path / "many.csv", index=False)

    def made(*names: str) -> tuple[object, object]:
        files = own_data(tmp_path, [tmp_path / name for name in names])
        profile = tomllib.loads(files[Path("specs/profiles/mine.toml")].decode())
        assert profile["encoder"]["pooling"] == "mean"
        return profile["optimizer"]["lr"], profile["train"]["epochs"]

    few, many = ((1e-4, 3), (5e-5, 3)) if is_installed else ((1e-3, 20), (1e-3, 5))
    assert (made("few.csv"), made("many.csv"), made("few.csv", "many.csv")) == (few, many, few)
