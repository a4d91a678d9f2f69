"""Suites read from files: against pandas, bad rows with file and line, the course's real files."""

from __future__ import annotations

import collections
import hashlib
import itertools
import json
import os
import random
import tempfile
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.ipc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.errors import DataError, MtrunError
from runner.parts.suites import Suite
from runner.parts.suites.files import Files, Source
from runner.specs.toml import read
from runner.specs.validation import PartBuilder
from runner.tasks import data as data_module
from runner.tasks.data import Data

SUITES = Path(__file__).parents[2] / "specs" / "suites"
REAL = os.environ.get("MTRUN_DATA", "")
needs_data = pytest.mark.skipif(not REAL, reason="MTRUN_DATA does not name the course's data")

GRADED = Source(title="S", kind="regression", high=5.0, columns=("sentence1", "sentence2"), label="similarity",
                train="a.csv", dev="b.csv")
FIVE = Source(title="F", kind="classification", classes=5, columns=("sentence",), label="sentiment", train="f.csv",
              dev="g.csv", test="t.csv")


def shipped(name: str) -> Files:
    table = read(SUITES / f"{name}.toml", name)
    del table["kind"]
    assembly = PartBuilder(SUITES)
    suite = assembly.part(Suite, table, table.place)
    assert isinstance(suite, Files), assembly.problems
    return suite


def load(folder: Path, source: Source, **options: str) -> Data:
    """Load a task from a folder; a dev file that is not there is made."""
    if source.dev in ("b.csv", "g.csv"):
        columns = ["sentence", "sentence1", "sentence2", "similarity", "sentiment"]
        (folder / source.dev).write_text("\t".join(["id", *columns]) + "\nz\tu\tv\tw\t1\t1\n")
    return Files(tasks={"x": source}, folder=str(folder), **options).load(folder)


def test_quoting_and_index_columns_are_pandas(tmp_path: Path) -> None:
    frame = pd.DataFrame({
        "id": ["a", "b", "c"], "sentence1": ['say "no"', "two\nlines", "tab\there"],
        "sentence2": ["plain", '"""', "end"], "similarity": [0.0, 2.5, 5.0],
    })
    frame.to_csv(tmp_path / "a.csv", sep="\t")
    data = load(tmp_path, GRADED)
    examples = data.splits["x"]["train"]
    assert examples.ids == ("a", "b", "c")
    assert list(examples.first) == list(frame.sentence1)
    assert list(examples.second) == list(frame.sentence2)
    assert examples.labels.tolist() == [0.0, 2.5, 5.0]


def test_header_without_a_title_for_the_index(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id\tsentence1\tsentence2\tsimilarity\n7\tq\tone\ttwo\t1.5\n")
    assert load(tmp_path, GRADED).splits["x"]["train"].first == ("one",)


def test_every_bad_row_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "\tid\tsentence1\tsentence2\tsimilarity\n0\ta\t\"one\nline\"\ttwo\t1\n1\tb\tone\t\t1\n2\tc\tone\ttwo\t5.5\n"
        "3\td\tone\ttwo\tx\n4\ta\tone\ttwo\t1\n5\te\tone\n6\tg\tone\ttwo\tnan\n")
    with pytest.raises(DataError) as caught:
        load(tmp_path, GRADED)
    found = {(p.place.line, p.message) for p in caught.value.problems}
    assert found == {
        (4, "row has no `sentence2`"),
        (5, "row has the label `5.5` in `similarity`; expected a number from 0 to 5"),
        (6, "row has the label `x` in `similarity`; expected a number from 0 to 5"),
        (7, "row repeats the id a"),
        (8, "row has 3 cells, where the header has 5"),
        (9, "row has the label `nan` in `similarity`; expected a number from 0 to 5"),
    }
    assert all('bad_rows = "drop"' in p.hint for p in caught.value.problems)
    data = load(tmp_path, GRADED, bad_rows="drop")
    assert data.dropped == {"a.csv": 6}
    assert data.splits["x"]["train"].ids == ("a",)


def test_labels_of_a_classification_and_a_test_file_without_any(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("\tid\tsentence\tsentiment\n0\ta\tgood\t4\n1\tb\tbad\t5\n")
    (tmp_path / "t.csv").write_text("0\t\tid\tsentence\n1\t0.0\tc\tso so\n")
    with pytest.raises(DataError, match=r"label `5` in `sentiment`; expected a whole number from 0 to 4"):
        load(tmp_path, FIVE)
    data = load(tmp_path, FIVE, bad_rows="drop")
    assert data.splits["x"]["test"].labels is None
    assert data.splits["x"]["test"].first == ("so so",)


@pytest.mark.parametrize(("text", "message"), [
    ("", "has no column `sentence1`"),
    ("\tid\tsentence1\tsentence2\tsimilarity\n", "has no usable example"),
    ("\tid\tsentence1\tsentense2\tsimilarity\n0\ta\tx\ty\t1\n", "has no column `sentence2`"),
])
def test_files_that_no_dropping_mends(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError) as caught:
        load(tmp_path, GRADED, bad_rows="drop")
    assert all(message in p.message for p in caught.value.problems)


def test_a_missing_file_and_bytes_that_are_no_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no data file a\.csv") as caught:
        load(tmp_path, GRADED)
    assert caught.value.problems[0].notes == ("did you mean `b.csv`?",)
    assert caught.value.problems[0].hint.startswith("set `folder` in the suite to the folder that holds it")
    with pytest.raises(DataError) as caught:
        Files(tasks={"x": GRADED}).load(tmp_path)
    assert caught.value.problems[0].hint.startswith("set MTRUN_DATA to the folder that holds them")
    (tmp_path / "a.csv").write_bytes(b"\tid\tsentence1\xff\n")
    with pytest.raises(DataError, match=r"^not UTF-8 at byte 14 of the line$"):
        load(tmp_path, GRADED)


def test_the_hash_is_of_content_not_of_places(tmp_path: Path) -> None:
    rows = "\tid\tsentence1\tsentence2\tsimilarity\n0\ta\tone\ttwo\t1\n"
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.csv").write_text(rows)
    first, second = (load(tmp_path / f, GRADED).sha256() for f in ("one", "two"))
    assert first == second
    (tmp_path / "two" / "a.csv").write_text(rows.replace("two", "too"))
    assert load(tmp_path / "two", GRADED).sha256() != first


@pytest.mark.parametrize("hidden", ["-1", ""])
def test_hidden_labels_of_a_test_file_are_unknown_and_single_ones_are_not(tmp_path: Path, hidden: str) -> None:
    (tmp_path / "f.csv").write_text("id,sentence,sentiment\na,good,4\nb,bad,0\n")
    (tmp_path / "t.csv").write_text(f"id,sentence,sentiment\nc,so,{hidden}\nd,well,{hidden}\n")
    examples = load(tmp_path, FIVE).splits["x"]["test"]
    assert examples.labels is None and examples.ids == ("c", "d")
    (tmp_path / "t.csv").write_text(f"id,sentence,sentiment\nc,so,{hidden}\nd,well,3\n")
    with pytest.raises(DataError, match=r"row has (no `sentiment`, which other rows|the label `-1`)") as caught:
        load(tmp_path, FIVE)
    assert [p.place.line for p in caught.value.problems if p.place] == [2]
    assert load(tmp_path, FIVE, bad_rows="drop").splits["x"]["test"].labels.tolist() == [3.0]


def test_minus_one_is_a_label_where_the_range_has_it(tmp_path: Path) -> None:
    source = GRADED.model_copy(update={"low": -1.0, "test": "t.csv"})
    for name in ("a", "t"):
        (tmp_path / f"{name}.csv").write_text(f"id\tsentence1\tsentence2\tsimilarity\n{name}\tone\ttwo\t-1\n")
    assert load(tmp_path, source).splits["x"]["test"].labels.tolist() == [-1.0]


def test_a_range_that_is_empty_is_refused() -> None:
    with pytest.raises(ValueError, match="`low` must be below `high`; they are 1 and 1"):
        Source(title="S", kind="regression", low=1.0, high=1.0, columns=("a",), label="l", train="a", dev="b")


@needs_data
@pytest.mark.parametrize("name", ["cs224n", "sst", "cfimdb"])
def test_real_files_as_pandas_reads_them(name: str) -> None:
    suite = shipped(name)
    data = suite.load(Path(REAL))
    for task, source in suite.tasks.items():
        for split, examples in data.splits[task].items():
            frame = pd.read_csv(Path(REAL) / getattr(source, split), sep="\t", keep_default_na=False)
            good = frame[(frame[list(source.columns)].map(str.strip) != "").all(axis=1)]
            if examples.labels is not None:
                good = good[good[source.label] != ""]
                np.testing.assert_array_equal(examples.labels, good[source.label].astype(float))
            assert list(examples.ids) == list(good["id"])
            assert list(examples.first) == [s.strip() for s in good[source.columns[0]]]
            if source.task().sentences == 2:
                assert list(examples.second) == [s.strip() for s in good[source.columns[1]]]


@needs_data
def test_the_real_row_without_a_second_question() -> None:
    suite = shipped("cs224n")
    assert suite.load(Path(REAL)).dropped == {"quora-train.csv": 1, "quora-dev.csv": 1}
    with pytest.raises(DataError) as caught:
        suite.model_copy(update={"bad_rows": "error"}).load(Path(REAL))
    assert {(Path(p.place.file).name, p.place.line) for p in caught.value.problems} == {
        ("quora-train.csv", 2577), ("quora-dev.csv", 222)}


# Formats, labels, ids -------------------------------------------------------------------------------------------------

WORDS = Source(title="W", kind="classification", labels=("sad", "glad", "calm"), columns=("text",), label="mood",
               train="train.jsonl", dev="dev.parquet")


def mooded(folder: Path, rows: int = 30) -> pd.DataFrame:
    frame = pd.DataFrame({"text": [f"sentence {n}" for n in range(rows)],
                          "mood": [WORDS.labels[n % 3] for n in range(rows)], "by": [n // 4 for n in range(rows)]})
    frame.to_json(folder / "train.jsonl", orient="records", lines=True)
    frame.assign(text="a " + frame.text).to_parquet(folder / "dev.parquet")
    return frame


def test_words_are_labels_and_rows_without_ids_are_numbered(tmp_path: Path) -> None:
    frame = mooded(tmp_path)
    data = load(tmp_path, WORDS)
    assert data.tasks["x"].names == WORDS.labels and data.tasks["x"].classes == 3
    train = data.splits["x"]["train"]
    assert train.ids == tuple(str(n + 1) for n in range(30)) and train.first == tuple(frame.text)
    assert [WORDS.labels[int(label)] for label in train.labels] == list(frame.mood)
    assert data.sha256() == load(tmp_path, WORDS).sha256()
    assert data.sha256() != load(tmp_path, WORDS.model_copy(update={"labels": ("glad", "sad", "calm")})).sha256()


def test_several_files_and_patterns_are_one_split(tmp_path: Path) -> None:
    frame = mooded(tmp_path)
    frame[:10].to_csv(tmp_path / "part-1.csv.gz", index=False)
    frame[10:].to_csv(tmp_path / "part-2.csv", index=False, sep="\t")
    whole = load(tmp_path, WORDS).splits["x"]["train"]
    for train in ("part-*", ("part-1.csv.gz", "part-2.csv")):
        part = load(tmp_path, WORDS.model_copy(update={"train": train})).splits["x"]["train"]
        assert (part.ids, part.first, list(part.labels)) == (whole.ids, whole.first, list(whole.labels))
    with pytest.raises(DataError, match=r"no data file parts-\* in"):
        load(tmp_path, WORDS.model_copy(update={"train": "parts-*"}))


@pytest.mark.parametrize("train", ["{}/elsewhere/*.csv", "{}/elsewhere/t.csv", "../elsewhere/*.csv", "../**/t.csv"])
def test_files_may_lie_elsewhere(tmp_path: Path, train: str) -> None:
    for name in ("data", "elsewhere"):
        (tmp_path / name).mkdir()
    mooded(tmp_path / "data").to_csv(tmp_path / "elsewhere" / "t.csv", index=False)
    with (tmp_path / "elsewhere" / "t.csv").open("a") as file:
        file.write("no mood,,1\n")
    data = load(tmp_path / "data", WORDS.model_copy(update={"train": train.format(tmp_path)}), bad_rows="drop")
    assert len(data.splits["x"]["train"]) == 30 and list(data.dropped.values()) == [1]


@pytest.mark.parametrize("train", ["[", "a**b", "***", "/", "..", "*", "\0", "x" * 300])
def test_odd_patterns_are_no_crash(tmp_path: Path, train: str) -> None:
    (tmp_path / "dev.parquet").write_bytes(b"PAR1")
    with pytest.raises(MtrunError):
        load(tmp_path, WORDS.model_copy(update={"train": train}))


def test_a_folder_that_datasets_saved(tmp_path: Path) -> None:
    frame = mooded(tmp_path)
    (tmp_path / "saved").mkdir()
    for number, part in enumerate((frame[:20], frame[20:])):
        table = pyarrow.Table.from_pandas(part, preserve_index=False)
        with pyarrow.ipc.new_stream(tmp_path / "saved" / f"data-0000{number}-of-00002.arrow", table.schema) as writer:
            writer.write_table(table)
    (tmp_path / "saved" / "state.json").write_text("{}")
    assert load(tmp_path, WORDS.model_copy(update={"train": "saved"})).splits["x"]["train"].first == tuple(frame.text)


@pytest.mark.parametrize(("kind", "values", "hint"), [
    ("classification", ["dog", "cat", "dog"], 'labels = ["cat", "dog"]'),
    ("classification", ["1", "2", "1"], 'labels = ["1", "2"]'),
    ("binary", ["entailed", "not", "not"], 'labels = ["entailed", "not"]'),
])
def test_labels_that_are_not_named_are_named_by_the_hint(tmp_path: Path, kind: str, values: list[str],
                                                         hint: str) -> None:
    pd.DataFrame({"text": ["a", "b", "c"], "label": values}).to_csv(tmp_path / "t.csv", index=False)
    pd.DataFrame({"text": ["d", "e", "f"], "label": values}).to_csv(tmp_path / "d.csv", index=False)
    given = {"title": "T", "kind": kind, "columns": ("text",), "label": "label", "train": "t.csv", "dev": "d.csv"}
    with pytest.raises(DataError) as caught:
        load(tmp_path, Source.model_validate(given))
    assert [p.hint.partition("classes: ")[2] for p in caught.value.problems] == [hint] * 2
    labels = tuple(tomllib.loads(hint)["labels"])
    data = load(tmp_path, Source.model_validate(given | {"labels": labels}))
    assert [data.tasks["x"].names[int(label)] for label in data.splits["x"]["train"].labels] == values


@pytest.mark.parametrize("values", [["true", "False", "TRUE"], ["yes", "no", "Yes"], ["1", "0", "1.0"]])
def test_a_binary_task_takes_yes_and_true(tmp_path: Path, values: list[str]) -> None:
    pd.DataFrame({"text": ["a", "b", "c"], "label": values}).to_csv(tmp_path / "t.csv", index=False)
    pd.DataFrame({"text": ["d"], "label": ["no"]}).to_csv(tmp_path / "d.csv", index=False)
    source = Source(title="T", kind="binary", columns=("text",), label="label", train="t.csv", dev="d.csv")
    assert load(tmp_path, source).splits["x"]["train"].labels.tolist() == [1, 0, 1]


def test_many_bad_rows_of_one_kind_are_counted(tmp_path: Path) -> None:
    rows = "".join(f"{n}\ttext {n}\t{n}\n" for n in range(30))
    (tmp_path / "f.csv").write_text("id\tsentence\tsentiment\n" + rows)
    with pytest.raises(DataError) as caught:
        load(tmp_path, FIVE.model_copy(update={"test": None}))
    assert [p.place.line for p in caught.value.problems] == [7, 8, 9, 10, 11]
    assert caught.value.problems[-1].notes == ("and 20 more like this",)


def test_one_file_for_two_splits_is_refused(tmp_path: Path) -> None:
    mooded(tmp_path)
    (tmp_path / "copy.jsonl").write_bytes((tmp_path / "train.jsonl").read_bytes())
    with pytest.raises(DataError, match=r"dev of `x` is the same file as train, train\.jsonl"):
        load(tmp_path, WORDS.model_copy(update={"dev": "copy.jsonl"}))


@pytest.mark.parametrize("keys", [
    {"dev": 0.0}, {"dev": 1.0}, {"dev": 0.6, "test": 0.4}, {"labels": ("a",)}, {"labels": ("a", "a")},
    {"labels": ("a", "b", "c"), "kind": "binary"}, {"labels": ("a", "b"), "kind": "regression"},
    {"labels": ("a", "b"), "classes": 3}, {"labels": ("a", "")}, {"labels": ("a", " b")}])
def test_keys_that_contradict_are_refused(keys: dict[str, object]) -> None:
    given = {"title": "T", "kind": "classification", "columns": ("text",), "label": "l", "train": "t", "dev": "d"}
    with pytest.raises(ValueError, match=r"`labels`|shares of `train`|greater than 0|less than 1"):
        Source.model_validate(given | keys)


# Shares of train ------------------------------------------------------------------------------------------------------

@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 2), st.integers(0, 9)), min_size=30, max_size=120),
       st.integers(0, 3), st.booleans(), st.randoms())
def test_shares_are_stratified_keep_groups_and_depend_on_no_order(
        rows: list[tuple[int, int, int]], seed: int, is_grouped: bool, chance: random.Random) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, labels = Path(name), WORDS.labels
        lines = [json.dumps({"text": f"s {text}", "mood": labels[text % 3], "by": by, "id": f"{n}"})
                 for n, (text, _, by) in enumerate(rows)]
        (folder / "train.jsonl").write_text("\n".join(lines))
        source = WORDS.model_copy(update={"dev": 0.2, "test": 0.1, "split_seed": seed,
                                          "group": "by" if is_grouped else None})
        try:
            splits = load(folder, source).splits["x"]
        except DataError as error:
            assert "too few different training examples" in str(error)
            return
        assert sorted(id for part in splits.values() for id in part.ids) == sorted(f"{n}" for n in range(len(rows)))
        key = (lambda n: rows[n][2]) if is_grouped else (lambda n: rows[n][0])
        of_group = [{key(int(id)) for id in part.ids} for part in splits.values()]
        assert not any(one & other for one, other in itertools.combinations(of_group, 2))
        largest = max(collections.Counter(map(key, range(len(rows)))).values())
        assert abs(len(splits["dev"]) - 0.2 * len(rows)) <= 2 * largest
        if not is_grouped:
            for label in range(3):
                total = sum(1 for text, _, _ in rows if text % 3 == label)
                assert abs((splits["dev"].labels == label).sum() - 0.2 * total) <= 2 * largest
        chance.shuffle(lines)
        (folder / "train.jsonl").write_text("\n".join(lines))
        again = load(folder, source).splits["x"]
        assert {split: set(part.ids) for split, part in again.items()} == {
            split: set(part.ids) for split, part in splits.items()}


def test_equal_sentences_that_leave_nothing_to_train_on_are_told(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,mood\n" + "the same,sad\n" * 9)
    with pytest.raises(DataError, match=r"too few different training examples for dev = 0.5: train would have none"):
        load(tmp_path, WORDS.model_copy(update={"train": "train.csv", "dev": 0.5}))


def test_the_hash_is_that_of_the_whole_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Portions are hashed; the definition is one JSON text for each split, as it was before."""
    mooded(tmp_path)
    data = load(tmp_path, WORDS)
    digest = hashlib.sha256(json.dumps(["x", data.tasks["x"].canonical()], sort_keys=True).encode())
    for split, part in sorted(data.splits["x"].items()):
        digest.update(json.dumps([split, part.ids, part.first, part.second, part.labels.tolist()]).encode())
    for size in (1, 7, 30, 10_000):
        monkeypatch.setattr(data_module, "PORTION", size)
        assert data.sha256() == digest.hexdigest()
