"""What TOML is refused: each limit with its place, hostile text in bounded time and memory, files that are none."""

from __future__ import annotations

import errno
import os
import threading
import time
import tracemalloc
from pathlib import Path

import pytest
import tomli

from runner.errors import Place, Problem, SpecError
from runner.specs import toml

Spot = tuple[int, int, int]  # line, column, width


def spot(place: Place | None) -> Spot:
    assert place
    return place.line, place.column, place.width


def problems(text: str) -> tuple[Problem, ...]:
    """What is wrong with a text."""
    with pytest.raises(SpecError) as caught:
        toml.parse(text, "spec.toml")
    assert len(caught.value.render()) < 30_000
    return caught.value.problems


REFUSED = {
    "a = hello": ("not valid TOML: `hello` has no quotes", (1, 5, 5)),
    "a = [tRUE]": ("not valid TOML: `tRUE` is no value", (1, 6, 4)),
    "a = null": ("not valid TOML: `null` is no value", (1, 5, 4)),
    "a = 1.2.3": ("not valid TOML: something stands behind the value", (1, 8, 1)),
    "a = -": ("not valid TOML: `-` is no number", (1, 5, 1)),
    "a = # 1": ("not valid TOML: a value is missing", (1, 5, 1)),
    "a = 1\nb = [1,\n": ("not valid TOML: this `[` is not closed", (2, 5, 1)),
    "a = [']', {b = 1\n": ("not valid TOML: this `{` is not closed", (1, 11, 1)),
    "a = 1\na = 2": ("not valid TOML: this key is set already", (2, 1, 5)),
    "[a]\n[a] # again": ("not valid TOML: `[a]` stands here a second time", (2, 1, 2)),
    "a = {b = 1, b = 2}": ("not valid TOML: this is set already", (1, 1, 17)),
    "a: 1": ("not valid TOML: an `=` is missing behind this key", (1, 2, 1)),
    "a = 'b\nc = 1": ("not valid TOML: these quotes are not closed", (1, 5, 2)),
    "a = [\"b\nc = 1": ("not valid TOML: these quotes are not closed", (1, 6, 2)),
    "a = '1'\nb = '''c\nd = 1": ("not valid TOML: these quotes are not closed", (2, 5, 4)),
    "a = \"\"\"b\nc = 1": ("not valid TOML: these quotes are not closed", (1, 5, 4)),
    "x = [1.0, nan]": ("`x` is nan, where a finite number was expected", (1, 11, 3)),
    "a.lr = { b = -inf }": ("`b` is -inf, where a finite number was expected", (1, 14, 4)),
    "lr = 1e999": ("`lr` is inf, where a finite number was expected", (1, 6, 5)),
    "n = 9223372036854775808": ("`n` does not fit into 64 bits", (1, 5, 19)),
    "n = -9223372036854775809": ("`n` does not fit into 64 bits", (1, 5, 20)),
    "n = 0xffff_ffff_ffff_ffff": ("`n` does not fit into 64 bits", (1, 5, 21)),
    "n = " + "9" * 4000: ("a number of 4000 characters does not fit into 64 bits", (1, 5, 4000)),
    "n = [ -" + "9" * 100_000 + " ]": ("a number of 100001 characters does not fit into 64 bits", (1, 7, 100_001)),
    "n = 0x" + "f" * 100_000: ("a number of 100002 characters does not fit into 64 bits", (1, 5, 100_002)),
    "s = 'a\0b'": ("control character U+0000", (1, 7, 1)),
    "# a\x7fb": ("control character U+007F", (1, 4, 1)),
    's = "a\\u0000b"': ("`s` holds the control character U+0000", (1, 5, 10)),
    "s = ['ok', 'a\x85']": ("`s` holds the control character U+0085", (1, 12, 4)),
    '"a\\u0001".b = 1': ("a key holds a character that does not print", (1, 1, 9)),
    '[x."a\\n"]': ("a key holds a character that does not print", (1, 4, 5)),
    "a = '\udcff'": ("the byte 0xff is not valid UTF-8", (1, 6, 1)),
    "a = " + "[" * 33 + "]" * 33: ("nested over 32 levels deep", (1, 37, 1)),
    ".".join("a" * 34) + "=1": ("nested over 32 levels deep", (1, 65, 1)),
    "[" + ".".join("a" * 33) + "]": ("nested over 32 levels deep", (1, 66, 1)),
    "[" + ".".join("a" * 30) + "]\nb.c = {d = [{}]}": ("nested over 32 levels deep", (2, 12, 1)),
    "a = " + "{b.c = " * 17 + "1" + "}" * 17: ("nested over 32 levels deep", (1, 117, 1)),
    "".join(f"[[{'.'.join('a' * i)}]]\n" for i in range(1, 18)): ("nested over 32 levels deep", (17, 35, 1)),
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: repr(text[:30]))
def test_refused_with_its_place(text: str) -> None:
    (problem,) = problems(text)
    assert (problem.message, spot(problem.place)) == REFUSED[text]


def test_all_problems_at_once() -> None:
    text = f"a = nan\nb = [{'1' * 5000}, inf]\nc = '\0'\n[d]\ne = 0x{'f' * 17}\n'f\u0085' = \"\\u0000\"\n"
    lines = [p.place.line for p in problems(text) if p.place]
    assert sorted(lines) == [1, 2, 2, 3, 5, 6, 6]
    assert len(problems(text + "g = what")) == 3, "with bad syntax only what was found before it"


def test_a_lone_carriage_return_is_no_line_end() -> None:
    first = problems("a = 1\rb = 2")[0]
    assert (first.message, spot(first.place)) == ("control character U+000D", (1, 6, 1))


@pytest.mark.parametrize(("text", "hint"), [
    ("a = hello", '"hello"'), ("a = True", ": true"), ("a = None", "leave out"), ("a = [1", "`]`"),
     ("a = 1\na.b = 2", "set once"), ("[a]\n[a]", "one header"), ('a = "x\ny"', '"""'),
    ('a = "C:\\data"', "backslash"), ('a = "C:\\users"', "backslash"), ("a = '\udce9'", "UTF-8"),
])
def test_hints(text: str, hint: str) -> None:
    assert hint in problems(text)[-1].hint


@pytest.mark.parametrize("text", [
    "a = " + "[" * 32 + "]" * 32, "[" + ".".join("a" * 32) + "]", ".".join("a" * 33) + " = 1.5",
    "".join(f"[[{'.'.join('a' * i)}]]\n" for i in range(1, 17)), "a = " + "{b.c = " * 16 + "1" + "}" * 16,
    "'" + "[" * 99 + "' = '" + "a." * 99 + "' # " + "[" * 99,
    'a = """' + "[\n" * 99 + '"""', "n = " + "1" * 298 + ".5", "a." * 32 + "b = 1.5\n" + "a." * 32 + "c = 1",
])
def test_the_limits_do_not_bite_early(text: str) -> None:
    assert toml.parse(text, "spec.toml") == tomli.loads(text)


SIZE = 1 << 20
HANGS = 30
"""Seconds of processor time after which a text counts as one that is never refused; an idle machine needs one."""
HOSTILE = {
    "too long": "#" * (SIZE + 1), "brackets": "[" * SIZE, "closing": "]" * SIZE, "pairs": "[]" * (SIZE // 2),
    "arrays": "a=[" + "[]," * (SIZE // 3 - 2) + "]", "tables": "a=" + "{a=" * (SIZE // 3 - 1),
    "dots": "a." * (SIZE // 2), "dots in headers": "".join(f"[{i}{'.a' * 25}]\n" for i in range(SIZE // 60)),
    "headers": "[[a]]\n" * (SIZE // 6), "comments": "#\n" * (SIZE // 2 - 5) + "a=nan",
    "line ends": "\n" * (SIZE - 5) + "a=nan", "blanks": "a=nan" + " " * (SIZE - 5),
    "nan": "a=[" + "nan," * (SIZE // 4 - 1) + "]", "fewer nan": "a=[" + "nan," * 19_000 + "]", "NUL": "\0" * SIZE,
    "escapes": 'a="' + "\\n" * (SIZE // 2 - 5) + '"\nb=nan', "open string": '"\\"' * (SIZE // 3),
    "open text": 'a="""' + '\\"""' * (SIZE // 5), "quotes": "'" * SIZE, "words": "a " * (SIZE // 2),
    "digits": "a=" + "1" * (SIZE - 2), "hex": "a=0x" + "f" * (SIZE - 4), "exponent": "a=1e" + "1" * (SIZE - 4),
    "long numbers": "a=[" + ("1" * 1000 + ",") * 990 + "]", "short numbers": "a=" + ("1" * 299 + " ") * 3000,
    "long key twice": f"{'k' * (SIZE // 3)}=1\n" * 2,
    "all but the end": "".join(f"k{i}.a={{b=[1]}}\n" for i in range(2800)) + "b=nan",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_refused_in_the_end(name: str) -> None:
    start = time.process_time()
    found = problems(HOSTILE[name])
    assert time.process_time() - start < HANGS
    assert 1 <= len(found) <= 1001
    assert all(len(problem.message) < 300 and problem.place for problem in found)
    assert name == "too long" or all(spot(problem.place)[0] for problem in found)


@pytest.mark.parametrize("name", ["line ends", "digits", "all but the end"])
def test_hostile_text_takes_little_memory(name: str) -> None:
    text = HOSTILE[name]
    tracemalloc.start()
    try:
        problems(text)
        assert tracemalloc.get_traced_memory()[1] < 150 << 20
    finally:
        tracemalloc.stop()


def refusal(path: Path, shown_as: str = "") -> Problem:
    """Why a file is refused."""
    with pytest.raises(SpecError) as caught:
        toml.read(path, shown_as)
    (problem,) = caught.value.problems
    return problem


def test_read_names_the_file_as_told(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(b"\xef\xbb\xbfa = 1\r\n")
    assert toml.read(path).keys_at["a"] == Place(str(path), 1, 1)
    assert toml.read(path, "specs/a.toml").keys_at["a"].file == "specs/a.toml"
    path.write_text("a = ")
    assert refusal(path, "specs/a.toml").place == Place("specs/a.toml", 1, 5)


@pytest.mark.parametrize(("data", "line", "column", "byte"), [
    (b"a = 1\r\nb = '\xc3\xa9\xff'", 2, 7, "0xff"), (b"\xff\xfea\0", 1, 1, "0xff"), (b"a = '\xc3", 1, 6, "0xc3"),
    (b"\xef\xbb\xbf# \xe9t\xe9", 1, 3, "0xe9"), (b"a = '\xed\xa0\x80'", 1, 6, "0xed"),
])
def test_bytes_that_are_not_utf8(tmp_path: Path, data: bytes, line: int, column: int, byte: str) -> None:
    (tmp_path / "a.toml").write_bytes(data)
    problem = refusal(tmp_path / "a.toml")
    assert problem.message == f"the byte {byte} is not valid UTF-8" and problem.place
    assert spot(problem.place) == (line, column, 1)
    problem.place.text.encode()


def test_length_limit_counts_bytes_and_reads_no_more(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(b"#" * SIZE)
    assert toml.read(path) == {}
    path.write_bytes(b"#" + "é".encode() * (SIZE // 2))
    assert "over 1 MiB" in refusal(path).message
    os.truncate(path, 1 << 36)
    tracemalloc.start()
    assert "over 1 MiB" in refusal(path).message and refusal(path).place == Place(str(path))
    assert tracemalloc.get_traced_memory()[1] < 50 << 20
    tracemalloc.stop()


def test_missing_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "ensemble7.toml").touch()
    problem = refusal(tmp_path / "ensmble7.toml", "ensmble7.toml")
    assert (problem.message, problem.place) == ("cannot read: no such file or directory", Place("ensmble7.toml"))
    assert problem.hint == "did you mean `ensemble7.toml`?"
    assert refusal(tmp_path / "other" / "a.toml").hint == ""


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path in (tmp_path, loop, Path("/dev/null"), Path("a\0b"), tmp_path / ("n" * 300)):
        problem = refusal(path, "shown.toml")
        assert problem.message.startswith("cannot read: ") and problem.place == Place("shown.toml")


def test_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    found: list[Problem] = []
    reader = threading.Thread(target=lambda: found.append(refusal(tmp_path / "fifo")), daemon=True)
    reader.start()
    reader.join(600)
    assert [problem.message for problem in found] == ["cannot read: not a regular file"]


def test_forbidden_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", refuse)
    assert refusal(tmp_path / "a.toml").message == "cannot read: permission denied"
