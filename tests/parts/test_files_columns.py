"""Sentences of several columns, tables without a header line, and tables in which a quote is a character."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.errors import DataError
from runner.parts.suites.files import Files, Source
from runner.tasks.data import Data
from runner.tasks.table_files import Table

NEWS = Source(title="N", kind="binary", columns=(("title", "body"),), label="label", train="train.csv", dev="dev.csv")


def load(folder: Path, source: Source, **options: str) -> Data:
    return Files(tasks={"x": source}, folder=str(folder), **options).load(folder)


def test_several_columns_are_one_sentence(tmp_path: Path) -> None:
    frame = pd.DataFrame({"title": ["Rain", "", " Sun "], "body": ["It rains.", "No title.", ""],
                          "question": ["When?", "Where?", "Why?"], "label": [0, 1, 0]})
    frame.to_csv(tmp_path / "train.csv", index=False)
    frame.assign(question=["a", "b", "c"]).to_json(tmp_path / "dev.csv", orient="records")
    texts = ("title: Rain body: It rains.", "body: No title.", "title: Sun")
    single = load(tmp_path, NEWS)
    assert single.splits["x"]["train"].first == texts and single.tasks["x"].sentences == 1
    pair = load(tmp_path, NEWS.model_copy(update={"columns": (("title", "body"), "question")}))
    train = pair.splits["x"]["train"]
    assert train.first == texts and train.second == ("When?", "Where?", "Why?") and pair.tasks["x"].sentences == 2


def test_a_sentence_of_empty_columns_is_a_bad_row(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("title,body,label\na,b,1\n,,0\n")
    (tmp_path / "dev.csv").write_text("title,body,label\nc,d,1\n")
    with pytest.raises(DataError, match=r"row has no `title` or `body`"):
        load(tmp_path, NEWS)
    assert load(tmp_path, NEWS, bad_rows="drop").splits["x"]["train"].first == ("title: a body: b",)


@pytest.mark.parametrize(("columns", "message"), [
    ((), "at least 1 item"), ((("a",),), "at least 2 items"), (("a", "b", "c"), "at most 2 items"),
    ((("a", ""),), "at least 1 character")])
def test_columns_that_are_no_sentences_are_refused(columns: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Source.model_validate(NEWS.model_dump() | {"columns": columns})


# Tables without a header line -----------------------------------------------------------------------------------------

COLA = Source(title="C", kind="binary", columns=("sentence",), label="label", train="train.tsv", dev="dev.tsv",
              test="test.tsv", header=("source", "label", "star", "sentence"))


def test_a_table_without_a_header_line_and_one_with(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("gj04\t1\t\tOur friends came.\ngj04\t0\t*\tCame friends our.\n")
    (tmp_path / "dev.tsv").write_text("\ufeffc-05\t1\t\tThe sailors rode.\n")
    (tmp_path / "test.tsv").write_text("index\tsentence\n0\tBill whistled.\n")
    splits = load(tmp_path, COLA).splits["x"]
    assert splits["train"].first == ("Our friends came.", "Came friends our.")
    assert splits["train"].labels.tolist() == [1, 0] and splits["dev"].first == ("The sailors rode.",)
    assert splits["test"].first == ("Bill whistled.",) and splits["test"].labels is None


def test_a_row_of_another_length_is_not_shifted(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("gj04\t1\t\tOur friends came.\ngj04\t0\t*\tCame friends our.\n")
    (tmp_path / "dev.tsv").write_text("c-05\t1\t\tThe sailors rode.\n")
    with pytest.raises(DataError) as caught:
        load(tmp_path, COLA.model_copy(update={"header": ("label", "star", "sentence"), "test": None}))
    rows = [(p.message, p.place.line) for p in caught.value.problems if p.place and p.place.line]
    assert rows == [("row has 4 cells, where the header has 3", line) for line in (1, 1, 2)]


def test_without_the_key_the_first_line_is_the_header(tmp_path: Path) -> None:
    for name in ("train", "dev"):
        (tmp_path / f"{name}.tsv").write_text(f"gj04\t1\t\tOur {name} came.\n")
    with pytest.raises(DataError, match="has no column `sentence`; it has gj04, 1, Our dev came"):
        load(tmp_path, COLA.model_copy(update={"header": (), "test": None}))


# Quotes that are characters -------------------------------------------------------------------------------------------

CELL = st.text(st.sampled_from('ab" \''), min_size=1, max_size=8)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=6))
def test_rows_without_quotes_are_those_of_the_csv_module(rows: list[tuple[str, str]]) -> None:
    text = "one\ttwo\n" + "".join(f"{a}\t{b}\n" for a, b in rows)
    table = Table(io.BytesIO(text.encode()), "t", quotes=False)
    wanted = [row for row in csv.reader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE)
              if any(cell.strip() for cell in row)]
    assert [table.header, *(row.cells for row in table.rows() if not row.problem)] == wanted


def test_a_quote_that_two_cells_share_is_text(tmp_path: Path) -> None:
    for name in ("train", "dev"):
        (tmp_path / f"{name}.tsv").write_text(f'sentence\tanswer\tlabel\n"He of {name} said\tshe said"\t1\n')
    source = NEWS.model_copy(update={"columns": ("sentence", "answer"), "train": "train.tsv", "dev": "dev.tsv"})
    with pytest.raises(DataError, match="row has 2 cells, where the header has 3"):
        load(tmp_path, source)
    train = load(tmp_path, source.model_copy(update={"quotes": False})).splits["x"]["train"]
    assert (train.first, train.second) == (('"He of train said',), ('she said"',))
