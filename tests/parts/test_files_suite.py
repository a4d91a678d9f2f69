"""Suites read from files: against pandas, bad rows with file and line, the course's real files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from runner.errors import DataError
from runner.parts.suites import Suite
from runner.parts.suites.files import Files, Source
from runner.specs.toml import read
from runner.specs.validation import PartBuilder

SUITES = Path(__file__).parents[2] / "specs" / "suites"
REAL = os.environ.get("MTRUN_DATA", "")
needs_data = pytest.mark.skipif(not REAL, reason="MTRUN_DATA does not name the course's data")

GRADED = Source(title="S", kind="regression", high=5.0, columns=("sentence1", "sentence2"), label="similarity",
                train="a.csv", dev="a.csv")
FIVE = Source(title="F", kind="classification", classes=5, columns=("sentence",), label="sentiment", train="f.csv",
              dev="f.csv", test="t.csv")


def shipped(name: str) -> Files:
    table = read(SUITES / f"{name}.toml", name)
    del table["kind"]
    assembly = PartBuilder(SUITES)
    suite = assembly.part(Suite, table, table.place)
    assert isinstance(suite, Files), assembly.problems
    return suite


def load(folder: Path, source: Source, **options: str) -> object:
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
    assert load(tmp_path, GRADED).splits["x"]["dev"].first == ("one",)


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
    ("", "has no column `id`"),
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
    assert "MTRUN_DATA" in caught.value.problems[0].hint
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
        (tmp_path / f"{name}.csv").write_text("id\tsentence1\tsentence2\tsimilarity\nx\tone\ttwo\t-1\n")
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
            assert list(examples.ids) == list(good[source.id])
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
