"""Files of rows in every format that people have: the same rows come back, and damage is named."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.errors import DataError
from runner.tasks.row_files import as_list, open_rows

Frame = list[dict[str, object]]

WRITERS: dict[str, Callable[[Path, Frame], None]] = {
    "csv": lambda path, rows: pd.DataFrame(rows).to_csv(path, index=False),
    "tsv": lambda path, rows: pd.DataFrame(rows).to_csv(path, index=False, sep="\t"),
    "semicolons": lambda path, rows: pd.DataFrame(rows).to_csv(path, index=False, sep=";"),
    "index": lambda path, rows: pd.DataFrame(rows).to_csv(path),
    "bom": lambda path, rows: pd.DataFrame(rows).to_csv(path, index=False, encoding="utf-8-sig"),
    "utf-16": lambda path, rows: pd.DataFrame(rows).to_csv(path, index=False, encoding="utf-16"),
    "csv.gz": lambda path, rows: pd.DataFrame(rows).to_csv(path, index=False, compression="gzip"),
    "csv.bz2": lambda path, rows: pd.DataFrame(rows).to_csv(path, index=False, compression="bz2"),
    "csv.xz": lambda path, rows: pd.DataFrame(rows).to_csv(path, index=False, compression="xz"),
    "csv.zip": lambda path, rows: pd.DataFrame(rows).to_csv(path, index=False, compression="zip"),
    "jsonl": lambda path, rows: pd.DataFrame(rows).to_json(path, orient="records", lines=True),
    "plain jsonl": lambda path, rows: path.write_text("".join(json.dumps(row) + "\n\n" for row in rows)),
    "jsonl.gz": lambda path, rows: pd.DataFrame(rows).to_json(path, orient="records", lines=True, compression="gzip"),
    "json": lambda path, rows: pd.DataFrame(rows).to_json(path, orient="records"),
    "indented json": lambda path, rows: path.write_text(json.dumps(rows, indent=2)),
    "json of columns": lambda path, rows: pd.DataFrame(rows).to_json(path),
    "indented json of columns": lambda path, rows: pd.DataFrame(rows).to_json(path, indent=1),
    "json of lists": lambda path, rows: path.write_text(
        json.dumps({key: [row[key] for row in rows] for key in rows[0]})),
    "json with data": lambda path, rows: path.write_text(json.dumps({"version": "1", "data": rows}, indent=1)),
    "objects one after another": lambda path, rows: path.write_text("\n".join(json.dumps(r, indent=1) for r in rows)),
    "parquet": lambda path, rows: pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path),
    "parquet of pandas": lambda path, rows: pd.DataFrame(rows).to_parquet(path, index=True),
    "parquet.gz": lambda path, rows: path.write_bytes(gzip.compress(_parquet(rows))),
    "feather": lambda path, rows: pyarrow.feather.write_feather(pa.Table.from_pylist(rows), path),
    "arrow stream": lambda path, rows: path.write_bytes(_stream(rows)),
    "arrow stream.zst": lambda path, rows: path.write_bytes(pa.Codec("zstd").compress(_stream(rows), asbytes=True)),
    "jsonl.zst": lambda path, rows: _zstandard(path, "".join(json.dumps(row) + "\n" for row in rows).encode()),
}


def _parquet(rows: Frame) -> bytes:
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


def _stream(rows: Frame) -> bytes:
    sink, table = pa.BufferOutputStream(), pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _zstandard(path: Path, content: bytes) -> None:
    with pa.CompressedOutputStream(str(path), "zstd") as stream:
        stream.write(content)


TEXT = st.one_of(
    st.sampled_from(["NA", "null", "None", "nan", "", "1", "1.0", " padded ", 'a "quote"', '"', "tab\there", "a,b;c",
                     "Ünïcode 文", "two\nlines", "#", "{", "[x]", "\\", "=1+1", "-"]),
    st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=20))
ROWS = st.lists(st.fixed_dictionaries({
    "sentence": TEXT.map(lambda text: f"x{text}x"), "note": TEXT, "label": st.integers(-3, 10**6),
    "score": st.integers(0, 20).map(lambda n: n / 4)}), min_size=1, max_size=6)


def cells(path: Path) -> list[list[str]]:
    rows = open_rows(path, "data")
    at = [rows.index(column) for column in ("sentence", "note", "label", "score")]
    found = list(rows.rows())
    assert not [row.problem for row in found if row.problem]
    return [[row.cells[position] for position in at] for row in found]


@pytest.mark.parametrize("kind", WRITERS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS)
def test_the_same_rows_come_back_from_every_format(tmp_path: Path, kind: str, rows: Frame) -> None:
    path = tmp_path / "file"
    WRITERS[kind](path, rows)
    wanted = [[str(row["sentence"]), str(row["note"]), str(row["label"]), str(row["score"])] for row in rows]
    found = cells(path)
    for one, other in zip(found, wanted, strict=True):
        assert one[:3] == other[:3] and float(one[3]) == float(other[3])  # pandas' JSON has 1 for 1.0


def test_values_are_the_text_that_a_table_would_have(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text('{"sentence": "a", "label": true, "note": null}\n{"label": 3, "sentence": "b", "score": 1.5}\n')
    assert cells(path) == [["a", "", "True", ""], ["b", "", "3", "1.5"]]
    pyarrow.parquet.write_table(pa.table({"sentence": ["a", None], "note": pa.array(["x", "y"]).dictionary_encode(),
                                          "label": [True, None], "score": [0.5, None], "vector": [[1.0], [2.0]]}), path)
    rows = open_rows(path, "data", ["sentence", "note", "label", "score"])
    assert [row.cells[:4] for row in rows.rows()] == [["a", "x", "True", "0.5"], ["", "y", "", ""]]


@pytest.mark.parametrize("orient", ["records", "columns"])
def test_a_table_in_one_line_of_json_may_be_long(tmp_path: Path, orient: str) -> None:
    frame = pd.DataFrame({"text": ["word " * 50 for _ in range(9_000)], "label": range(9_000)})
    frame.to_json(tmp_path / "file", orient=orient)
    rows = open_rows(tmp_path / "file", "data")
    assert [row.cells for row in rows.rows()][-1] == ["word " * 50, "8999"]


def test_columns_are_aligned_by_their_rows_and_lists_follow_one_another(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for text in ('{"a": {"0": 1, "1": 2}, "b": {"1": "two", "0": "one"}}',
                 '[{"a": 1, "b": "one"}]\n[{"a": 2, "b": "two"}]',
                 '{"n": 2, "rows": [{"a": 1, "b": "one"}, {"a": 2, "b": "two"}]}',
                 '{"a": 1, "b": "one", "c": [{"d": 1}]}\n{"a": 2, "b": "two", "c": []}'):
        path.write_text(text)
        rows = open_rows(path, "data", ["a", "b"])
        assert [row.cells[:2] for row in rows.rows()][:2] == [["1", "one"], ["2", "two"]], text


def test_columns_that_are_missing_or_repeated(tmp_path: Path) -> None:
    path = tmp_path / "file"
    pyarrow.parquet.write_table(pa.table([pa.array([1]), pa.array([2]), pa.array([3])], names=["a", "a", "b"]), path)
    rows = open_rows(path, "data", ["b"])
    assert [row.cells[rows.index("b")] for row in rows.rows()] == ["3"]
    with pytest.raises(DataError, match="2 columns are called `a`"):
        rows.index("a")
    path.write_text("[[1, 2]]")
    with pytest.raises(DataError, match="data has no column `a`, and no others"):
        open_rows(path, "data", ["a"]).index("a")
    path.write_text('{"a": "\\ud800", "b": "\\ud83d\\ude00"}')
    assert [row.cells for row in open_rows(path, "data", ["a"]).rows()] == [["?", "\U0001f600"]]


def test_values_that_no_cell_can_hold_matter_in_wanted_columns_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text('{"a": 1, "b": [1]}\n{"a": {"c": 1}, "b": [2]}\n')
    first, second = open_rows(tmp_path / "file", "data", ["a"]).rows()
    assert first.cells == ["1", ""] and second.problem and "a dict in `a`" in second.problem.message


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for text, wanted in (('{"a": 1}\n\n{"a": 2}\n', [1, 3]), ('\n[{"a": 1},\n\n {"a":\n 2},\n{"a": 3}]', [2, 4, 6]),
                         ('{\n"a": 1\n}\n{"a": 2}', [1, 4])):
        path.write_text(text)
        assert [row.line for row in open_rows(path, "data").rows()] == wanted, text


@pytest.mark.parametrize(("content", "line", "message"), [
    (b'{"a": 1}\n{"a": \n', 2, "not JSON: Expecting value"),
    (b'{"a": 1}\n["b"]\n', 2, "not a JSON object"),
    (b'{"a": 1}\n{"a": [1]}\n', 2, "row has a list in `a`, not text or a number"),
    (b'[{"a": 1},\n{"a" 2}]', 2, "not JSON: Expecting ':' delimiter"),
    (b'{"a": [1, 2], "b": [1]}', 1, "the columns of this table have different rows"),
    (b'{"a": "\xff"}', 1, "not UTF-8"),
    (b'[{"a": 1},\n{"a": 2},\n', 2, "not JSON: Expecting value"),
    (b'[{"a": 1},\n{"a": 2}\n', 2, "not JSON: a list that is not closed"),
    (b'[{"a": 1}\n{"a": 2}]', 2, "not JSON: expecting `,` or `]`"),
    (b'{"a": 1}\n{"a": 2} {"a": 3}', 2, "not JSON: more than one value in a line"),
    (b'{"a": {"0": 1, "1": 2}, "b": {"0": 1, "2": 2}}', 1, "the columns of this table have different rows"),
    (gzip.compress(b"a,b\n1,2\n" * 999)[:-20], 0, "data is compressed and damaged"),
    (bz2.compress(b"a,b\n1,2\n" * 999)[:-20], 0, "data is compressed and damaged"),
    (lzma.compress(b"a,b\n1,2\n" * 999)[:-20], 0, "data is compressed and damaged"),
    (b"PK\3\4" + b"x" * 50, 0, "data is compressed and damaged"),
    (b"PAR1" + b"x" * 50, 0, "data is damaged"),
    (b"ARROW1\0\0" + b"x" * 50, 0, "data is damaged"),
    (_parquet([{"a": "x" * 999, "b": 1}])[:300], 0, "data is damaged"),
    (_stream([{"a": "x" * 999, "b": 1}])[:700], 0, "data is damaged"),
], ids=map(str, range(19)))
def test_damage_is_named(tmp_path: Path, content: bytes, line: int, message: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        rows = open_rows(path, "data", ["a"])
        raise DataError(*[row.problem for row in rows.rows() if row.problem])
    (problem,) = caught.value.problems
    assert problem.message.startswith(message) and problem.place and problem.place.line == line


@pytest.mark.parametrize(("members", "message"), [
    (["xl/workbook.xml", "[Content_Types].xml"], "data is a spreadsheet"),
    (["a.csv", "b.csv"], "data holds 2 files, not one"), ([], "data holds 0 files, not one")])
def test_archives_of_other_things_are_told(tmp_path: Path, members: list[str], message: str) -> None:
    with zipfile.ZipFile(tmp_path / "file", "w") as archive:
        for name in members:
            archive.writestr(name, "a,b\n1,2\n")
    with pytest.raises(DataError) as caught:
        open_rows(tmp_path / "file", "data")
    assert caught.value.problems[0].message == message


def test_an_archive_of_a_mac_has_one_file(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "file", "w") as archive:
        for name in ("folder/a.csv", "__MACOSX/folder/._a.csv", "folder/.DS_Store"):
            archive.writestr(name, "sentence,note,label,score\nx,y,1,2\n")
    assert cells(tmp_path / "file") == [["x", "y", "1", "2"]]


def test_without_pyarrow_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS["parquet"](tmp_path / "file", [{"a": 1}])
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(DataError) as caught:
        open_rows(tmp_path / "file", "data")
    assert caught.value.problems[0].hint == "pip install 'mtrun[data]'"


# Lists in cells -------------------------------------------------------------------------------------------------------

ITEMS = st.lists(st.one_of(st.text(max_size=5), st.integers(-9, 9), st.booleans()), max_size=4)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ITEMS, min_size=1, max_size=5))
def test_lists_come_back_where_they_are_allowed(tmp_path: Path, rows: list[list[object]]) -> None:
    path = tmp_path / "file"
    path.write_text("\n".join(json.dumps({"id": f"{n}", "a": items}) for n, items in enumerate(rows)))
    found = list(open_rows(path, "data", ["a"], lists=["a"]).rows())
    assert [as_list(row.cells[1]) for row in found] == [
        [str(item).strip().encode(errors="replace").decode() for item in items] for items in rows]
    assert all(row.problem for row in open_rows(path, "data", ["a"]).rows())
    assert not any(row.cells[1] for row in open_rows(path, "data", ["id"]).rows())


@pytest.mark.parametrize(("cell", "items"), [
    ('["a", "b"]', ["a", "b"]), ("['a', \"b's\"]", ["a", "b's"]), ("[]", []),
    (" [1, 2.5, true] ", ["1", "2.5", "True"]), ("['a' 'b\\n c']", ["a", "b\n c"]), ("[ 2  17]", ["2", "17"]),
    ("[1, 2", None), ("", None), ("a", None), ("[a]", None), ("[" * 9999, None),
    ('{"a": 1}', None), ("[__import__('os')]", None)])
def test_lists_are_read_from_json_and_from_python(cell: str, items: list[str] | None) -> None:
    assert as_list(cell) == items


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.sampled_from(["a", "b's", "news", "top 10", "10 20", 'a "b"']), max_size=4), min_size=1))
def test_lists_are_those_that_went_through_parquet_and_pandas_into_a_table(tmp_path: Path, rows: list[list[str]]
                                                                           ) -> None:
    pyarrow.parquet.write_table(pa.table({"a": pa.array(rows, pa.list_(pa.string())), "b": range(len(rows))}),
                                tmp_path / "parquet")
    pd.read_parquet(tmp_path / "parquet").to_csv(tmp_path / "file", index=False)
    assert [as_list(row.cells[0]) for row in open_rows(tmp_path / "file", "data").rows()] == rows


@pytest.mark.parametrize("value", [[["nested"]], [{"a": 1}], [None]])
def test_lists_of_other_things_are_bad_rows(tmp_path: Path, value: list[object]) -> None:
    (tmp_path / "file").write_text(json.dumps({"a": value, "b": 1}) + '\n{"a": [], "b": 1}\n')
    bad, good = open_rows(tmp_path / "file", "data", ["a"], lists=["a"]).rows()
    assert bad.problem and bad.problem.message == "row has a list in `a`, not text or a number" and not good.problem
