"""The reader of tables: what people's files look like, and mutations of files, by which no row is lost in silence."""

from __future__ import annotations

import csv
import io
import random
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import DataError
from runner.tasks.table_files import LONGEST, Row, Table, lines

COLUMNS = ["id", "label", "sentence"]


def table(content: str | bytes, name: str = "dev.tsv") -> Table:
    return Table(io.BytesIO(content.encode() if isinstance(content, str) else content), name)


def cells(content: str | bytes) -> list[list[str]]:
    rows = list(table(content).rows())
    assert not [row.problem for row in rows if row.problem]
    return [row.cells for row in rows]


def refused(content: str | bytes, name: str = "dev.tsv") -> DataError:
    with pytest.raises(DataError) as caught:
        list(table(content, name).rows())
    return caught.value


ROWS = [["a", "1", "it is fine"], ["b", "0", "it is not"]]
PLAIN = "id\tlabel\tsentence\na\t1\tit is fine\nb\t0\tit is not\n"


@pytest.mark.parametrize("content", [
    PLAIN, PLAIN.replace("\t", ","), PLAIN.replace("\t", ";"), PLAIN.rstrip("\n"), PLAIN.replace("\n", "\r\n"),
    "\ufeff" + PLAIN, PLAIN + "\n\n \n", PLAIN.replace("\nb", "\n\nb"), PLAIN + "\t\t\n", "\n\n" + PLAIN,
    PLAIN.encode("utf-16"), b"\xfe\xff" + PLAIN.encode("utf-16-be"), PLAIN.replace("\n", "\t\n"),
    PLAIN.replace("\na", "\n0\ta").replace("\nb", "\n1\tb"), PLAIN.replace("it is fine", '"it is fine"'),
    PLAIN.replace("label", '"label"')],
    ids=["tabs", "commas", "semicolons", "no end", "crlf", "bom", "blank end", "blank inside", "empty cells",
         "blank start", "utf-16", "utf-16 big", "trailing", "index", "quoted", "quoted header"])
def test_one_table_in_many_spellings(content: str | bytes) -> None:
    read = cells(content)
    assert [row[:3] for row in read] == ROWS and all(not any(row[3:]) for row in read)


def test_quotes_are_those_of_csv_where_they_close() -> None:
    assert cells('id,label,sentence\na,1,"so, ""it"" is"\n') == [["a", "1", 'so, "it" is']]
    assert cells('id\tlabel\tsentence\na\t1\t"two\nlines"\nb\t0\tx\n') == [["a", "1", "two\nlines"], ["b", "0", "x"]]


@pytest.mark.parametrize("text", ['"Hello', 'Hello"', 'say "no', '"Hi" he said', '"', '"" x', 'a "b" c'])
def test_quotes_that_do_not_close_are_text_and_take_no_row(text: str) -> None:
    content = f"id\tlabel\tsentence\na\t1\t{text}\nb\t0\tplain\nc\t0\tends so\"\n"
    assert cells(content) == [["a", "1", text], ["b", "0", "plain"], ["c", "0", 'ends so"']]


def test_a_column_alone_tells_no_lines_from_rows() -> None:
    rows = list(table('sentence\n"one\ntwo"\nthree\n').rows())
    assert rows[0].problem and rows[0].problem.place and rows[0].problem.place.line == 2
    assert [row.cells for row in rows[1:]] == [["three"]]


@pytest.mark.parametrize(("row", "count"), [("a\t1\tit was\tfun", 4), ("a\t1", 2), ("a", 1), ("a\t1\tfun\t", 4)])
def test_a_row_of_other_cells_is_told_and_shifts_nothing(row: str, count: int) -> None:
    rows = list(table(PLAIN + row + "\nd\t1\tlast\n").rows())
    assert [r.line for r in rows] == [2, 3, 4, 5] and [bool(r.problem) for r in rows] == [False, False, True, False]
    problem = rows[2].problem
    assert problem and problem.message.startswith(f"row has {count} cell") and "tabs" in problem.notes[0]
    assert rows[3].cells == ["d", "1", "last"]


def test_columns_are_asked_for_by_name() -> None:
    assert table(PLAIN).index("label") == 1
    for header, message in (("id\tlabel\tlabel\n", "2 columns are called `label`"),
                            ("id\tlabels\n", "has no column `label`")):
        with pytest.raises(DataError, match=message) as caught:
            table(header).index("label")
        (problem,) = caught.value.problems
        assert problem.place and problem.place.line == 1 and problem.hint
    with pytest.raises(DataError) as caught:
        table("id,label,sentence\n").index("sentiment")
    assert caught.value.problems[0].notes == ("its columns are separated by commas",)


@pytest.mark.parametrize(("content", "line", "message"), [
    (PLAIN.encode() + "c\t0\tcaf\xe9\n".encode("latin-1"), 4, "not UTF-8 at byte 8 of the line"),
    (PLAIN.encode() + b"c\t0\ta\0b\n", 4, "a byte 0"),
    (PLAIN.encode("utf-16-le"), 1, "a byte 0"),
    (b"\xff\xfea", 0, "begins as UTF-16"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", 1, "a Git LFS pointer"),
    (b"\x1f\x8b\x08\0", 0, "compressed with gzip"), (b"PK\x03\x04...", 0, "a zip archive"), (b"PAR1", 0, "Parquet"),
    ((PLAIN + "c\t0\t" + "x" * (LONGEST + 1)).encode(), 4, "a line of over"),
])
def test_what_is_no_text_is_named_with_what_to_do(content: bytes, line: int, message: str) -> None:
    (problem,) = refused(content).problems
    assert message in problem.message and problem.place and problem.place.line == line


def test_a_long_text_is_read() -> None:
    assert len(cells(PLAIN + "c\t0\t" + "word " * 40_000 + "\n")[2][2]) == 200_000


TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n"), max_size=9)


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=6), st.sampled_from("\t,;"))
def test_what_pandas_writes_is_read_as_it_was(pairs: list[tuple[str, str]], separator: str) -> None:
    rows = [[f"r{n}", *(text.strip("\n") for text in pair)] for n, pair in enumerate(pairs)]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC):
        content = frame.to_csv(sep=separator, index=False, quoting=quoting)
        read = list(table(content).rows())
        assert [row.cells for row in read if not row.problem] == rows or any(row.problem for row in read)
        if all("\n" not in text for pair in pairs for text in pair):
            assert [row.cells for row in read] == rows


def mutated(content: bytes, dice: random.Random) -> bytes:
    """Return a file with a few bytes inserted, removed or doubled, at best where they hurt."""
    for _ in range(dice.randint(1, 3)):
        signs = [n for n, byte in enumerate(content) if byte in b'\t,;\n"']
        at = dice.choice(signs if signs and dice.random() < 0.6 else range(len(content)))
        match dice.randrange(3):
            case 0:
                new = dice.choice([
                    b'"', b"\t", b",", b";", b"\n", b"\r\n", b"\r", b'""', b"\xef\xbb\xbf", b"\xff", b"\0",
                                   b" ", b"\n\n", b"\xe9", b"\x0b", b"\x1c", b"\xe2\x80\xa8", b'"\t', b'\t"', b'\n"'])
                content = content[:at] + new + content[at:]
            case 1:
                content = content[:at] + content[at + 1 :]
            case _:
                content = content[:at] + content[at : at + 1] + content[at:]
    return content


def mutations(count: int, seed: int) -> None:
    """Read mutated tables: each row is there, or there is an error or a problem that names a line of the file."""
    dice = random.Random(seed)
    for _ in range(count):
        separator = dice.choice("\t,;")
        size = dice.randint(1, 9)
        texts = [" ".join(dice.choices(["good", "bad", 'so "so"', "it's", "fine"], k=3)) for _ in range(size)]
        if dice.random() < 0.3:
            texts[dice.randrange(size)] = '"quoted' + separator + ' text"'
        content = "".join(separator.join(row) + "\n" for row in
                          [COLUMNS, *([f"r{n}", str(n % 2), text] for n, text in enumerate(texts))]).encode()
        broken = mutated(content, dice)
        try:
            read = table(broken)
            for column in COLUMNS:
                read.index(column)
            rows = list(read.rows())
        except DataError as error:
            (problem,) = error.problems
            assert problem.place and problem.place.line <= broken.count(b"\n") + 1
            continue
        problems = [row.problem for row in rows if row.problem]
        assert len(rows) >= size or problems, broken
        assert all(p.place and 1 <= p.place.line <= broken.count(b"\n") + 1 for p in problems)
        untouched = {f"r{n}": text for n, text in enumerate(texts)
                     if content.split(b"\n")[n + 1] in broken.replace(b"\r\n", b"\n").split(b"\n")}
        by_id = {row.cells[0]: row for row in rows if row.cells}
        for name, text in untouched.items():
            row = by_id.get(name) or Row(0, [])
            assert problems or row.cells[2] == text.strip('"') or row.cells[2] == text, broken


def test_mutations_lose_no_row_in_silence() -> None:
    mutations(1500, seed=1)


@pytest.mark.long
def test_ten_thousand_mutations_lose_no_row_in_silence() -> None:
    mutations(10_000, seed=2)


def test_lines_end_where_editors_say(tmp_path: Path) -> None:
    content = "a\x0bb\x1c\u2028c\r\nd\re\n".encode()
    assert [line.text for line in lines(io.BytesIO(content), "x")] == ["a\x0bb\x1c\u2028c", "d\re"]
