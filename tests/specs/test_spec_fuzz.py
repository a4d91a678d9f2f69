"""Every shipped spec, spoilt in every key: the right place, the right suggestion, and never a traceback.

Run with `-s` to see the figures; `-m long` makes 10,000 random mutations of the text instead of a few hundred.
"""

from __future__ import annotations

import random
import re
import shutil
import string
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import tomli

from runner.errors import Problem, SpecError
from runner.specs.loader import Loader
from runner.specs.toml import Array, Table, parse

SPECS = Path(__file__).parents[2] / "specs"
FILES = sorted({str(path.relative_to(SPECS)) for path in SPECS.rglob("*.toml")} - {"suites/mteb-sts.toml"})
"""All but a suite whose tasks' names, sts13 and sts14, are misspellings of one another."""
THROUGH = {"suites/cs224n.toml": ("models/sum.toml", "paper"), "suites/demo.toml": ("models/sum.toml", "demo"),
           "suites/sst.toml": ("baseline/full-sst.toml", "demo"),
           "suites/cfimdb.toml": ("baseline/full-cfimdb.toml", "demo")}
"""The spec, and the profile, by which a suite is read; others are read alone."""
FREE = {"title", "init", "columns", "label", "train", "dev", "test", "name", "id", "folder", "description",
        "header", "labels"}
"""Keys whose texts may be anything, so that no misspelling of them can be told."""
LOSSES = {"binary": "bce", "classification": "cross_entropy", "regression": "mse"}


Change = tuple[str, str, Iterable[int]]
"""A text with one key spoilt, the suggestion expected, and the lines at which a problem is expected."""


@dataclass
class Key:
    """One key of a file: its path, where it and its value stand, and where its table begins."""

    path: tuple[str, ...]
    value: Any
    line: int
    start: int
    end: int
    value_line: int
    value_start: int
    value_end: int
    table_line: int


@dataclass
class Tally:
    """Counts of what was tried and what went right."""

    tried: int = 0
    suggested: int = 0
    unnoticed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    unsuggested: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        refused = self.tried - len(self.unnoticed)
        asked = self.suggested + len(self.unsuggested)
        text = f"{self.tried} tried, {len(self.unnoticed)} accepted, {refused - len(self.wrong)} of {refused} refusals "
        return text + "with the right place" + (f", {self.suggested} of {asked} suggestions right" if asked else "")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fuzz")
    shutil.copytree(SPECS, root / "specs")
    tasks = tomli.loads((SPECS / "suites" / "glue.toml").read_text())["tasks"]  # which no model of the project uses
    heads = "".join(f'[heads.{name}]\ntype = "{"pair" if len(task["columns"]) == 2 else "linear"}"\n'
                    f'loss = "{LOSSES[task["kind"]]}"\n' for name, task in tasks.items())
    (root / "specs" / "glue.toml").write_text(
        f'kind = "model"\nsuite = "suites/glue.toml"\ncombiner = "sum"\n{heads}')
    return root


def offset(text: str, line: int, column: int) -> int:
    return sum(len(each) + 1 for each in text.split("\n")[: line - 1]) + column - 1


def end_of_value(text: str, start: int) -> int:
    """Where the value that starts here ends: the first line end at which TOML has a whole value."""
    for found in re.finditer(r"[ \t]*(#[^\n]*)?(\n|\Z)", text[start:]):
        try:
            tomli.loads("x = " + text[start : start + found.start()])
        except tomli.TOMLDecodeError:
            continue
        return start + found.start()
    raise AssertionError(text[start:])


def keys(text: str) -> Iterator[Key]:
    """Every key of a file that stands alone on its line, and every header's last part; none within braces."""

    def walk(table: Table, path: tuple[str, ...]) -> Iterator[Key]:
        for name, value in table.items():
            key, at = table.keys_at[name], table.values_at[name]
            start, begin = offset(text, key.line, key.column), offset(text, at.line, at.column)
            is_headed = isinstance(value, Table) and text[begin] != "{"
            end = begin if is_headed else end_of_value(text, begin)
            yield Key((*path, name), value, key.line, start, start + key.width, at.line, begin, end, table.place.line)
            if is_headed:
                yield from walk(value, (*path, name))

    return walk(parse(text, "f"), ())


def typo(word: str, draw: random.Random) -> str:
    """The word with one letter added, lost, changed or swapped with the next; extension and folders stay."""
    folder, slash, name = word.rpartition("/")
    stem, dot, extension = name.partition(".")
    at, letter = draw.randrange(len(stem)), draw.choice(string.ascii_lowercase)
    one, two = stem[:at], stem[at:]
    made = draw.choice([one + letter + two, one + two[1:] if len(stem) > 1 else stem + letter, one + letter + two[1:],
                        one + two[1:2] + two[:1] + two[2:]])
    return folder + slash + made + dot + extension if made != stem else typo(word, draw)


def load(project: Path, file: str, text: str) -> tuple[Problem, ...] | None:
    """The problems of a project with one file spoilt; None where there are none."""
    path = project / "specs" / file
    before = path.read_text()
    spec, profile = THROUGH.get(file, (file, "demo"))
    if file.startswith("profiles/"):
        spec, profile = "models/sum.toml", Path(file).stem
    path.write_text(text)
    try:
        loader = Loader(project, profile)
        (loader.suite_in if spec.startswith("suites/") else loader.load)(project / "specs" / spec)
    except SpecError as error:
        assert error.render()
        return error.problems
    finally:
        path.write_text(before)
    return None


def placed(problems: tuple[Problem, ...], file: str, key: Key, lines: Iterable[int]) -> list[Problem]:
    """The problems at, or with a note of, one of some lines of a file, or where a table's header lacks the key."""
    spots = {f"/{file}:{line}" for line in lines}
    header = re.compile(rf"\[{re.escape('.'.join(key.path[:-1]))}\]" if key.path[:-1] else "")
    return [p for p in problems if p.place and (
        any(text.endswith(spot) for spot in spots for text in (str(p.place), *p.notes))
        or (p.message.startswith(f"`{key.path[-1]}` is missing") and header.match(p.place.text)))]


def spoil(project: Path, change: Callable[[str, Key, random.Random], Iterator[Change]]) -> Tally:
    """Change every key of every file; a change gives a new text, the suggestion expected of it and its lines."""
    tally = Tally()
    for file in FILES:
        text = (SPECS / file).read_text()
        for key in keys(text):
            if file.startswith("suites/") and file not in THROUGH and key.path[:-1] == ("tasks",):
                continue  # a suite that no model names may call its tasks as it likes
            draw = random.Random(f"{file} {key.path}")
            for changed, wanted, lines in change(text, key, draw):
                problems, what = load(project, file, changed), f"{file} {'.'.join(key.path)}"
                tally.tried += 1
                if problems is None:
                    tally.unnoticed.append(what)
                    continue
                found = placed(problems, file, key, lines)
                if not found:
                    tally.wrong.append(f"{what}: {[(str(p.place), p.message) for p in problems]}")
                if wanted and any(p.hint.startswith(f"did you mean `{wanted}`") for p in found or problems):
                    tally.suggested += 1
                elif wanted:
                    tally.unsuggested.append(f"{what}: {[(p.message, p.hint) for p in problems]}")
    return tally


def check(name: str, tally: Tally, accepted: int) -> None:
    """Print the figures; all places must be right, 95 % of the suggestions, and only some per cent be accepted."""
    print(f"\n{name}: {tally}")
    assert not tally.wrong, "\n".join(tally.wrong)
    assert len(tally.unnoticed) <= accepted * tally.tried / 100, "\n".join(tally.unnoticed)
    assert len(tally.unsuggested) <= 0.05 * (tally.suggested + len(tally.unsuggested)), "\n".join(tally.unsuggested)


def test_misspelt_keys(project: Path) -> None:
    def misspell(text: str, key: Key, draw: random.Random) -> Iterator[Change]:
        name = text[key.start : key.end].strip('"').rpartition(".")[2]
        end = key.end - (text[key.end - 1] == '"')
        new = typo(name, draw)
        while re.search(rf"^{new}\b", text, re.M):  # `epochs` must not become the `epoch` beside it
            new = typo(name, draw)
        yield text[: end - len(name)] + new + text[end:], name, (key.line,)

    check("misspelt keys", spoil(project, misspell), accepted=1)


def test_misspelt_texts(project: Path) -> None:
    def misspell(text: str, key: Key, draw: random.Random) -> Iterator[Change]:
        values = key.value if isinstance(key.value, Array) else [key.value]
        if key.path[-1] in FREE:
            return
        for value in values:
            if isinstance(value, str):
                start = text.index(f'"{value}"', key.value_start) + 1
                yield (text[:start] + typo(value, draw) + text[start + len(value) :], value,
                       (text.count("\n", 0, start) + 1,))

    check("misspelt types, tasks and files", spoil(project, misspell), accepted=1)


def test_mistyped_values(project: Path) -> None:
    def mistype(text: str, key: Key, draw: random.Random) -> Iterator[Change]:
        if not isinstance(key.value, Table):
            wrong = "12345" if isinstance(key.value, str | list) else '"text"'
            yield text[: key.value_start] + wrong + text[key.value_end :], "", (key.value_line,)

    check("mistyped values", spoil(project, mistype), accepted=0)


def test_deleted_keys(project: Path) -> None:
    def delete(text: str, key: Key, draw: random.Random) -> Iterator[Change]:
        if not isinstance(key.value, Table):
            start = text.rindex("\n", 0, key.start) + 1
            yield text[:start] + text[key.value_end + 1 :], "", range(key.table_line, key.line + 20)

    check("deleted keys", spoil(project, delete), accepted=70)


PIECES = [*"[]{}=.,#\"'\\\n\t \0e_-+1xé\u202e", "[[", "]]", "nan", '"""', "'''", "\\u0000", "\r\n", "9" * 20, "9" * 400,
          "true", "[a]", "a.b", "../", "run:", "kind", "extends", "type", '"sum.toml"', "[sweep]", "1979-05-27", "{}"]


def mutated(text: str, draw: random.Random) -> str:
    """A text with one to four stretches doubled, moved, deleted or replaced."""
    for _ in range(draw.randrange(1, 5)):
        start = draw.randrange(len(text) + 1)
        end = start + draw.choice((0, 0, 1, 3, 20, 80))
        other = draw.randrange(len(text) + 1)
        piece = draw.choice((draw.choice(PIECES), text[start:end] * 2, "", text[other : other + 30]))
        text = text[:start] + piece + text[end:]
    return text


def fuzz(project: Path, count: int, seed: int) -> str:
    """Figures of so many mutations; anything but a SpecError comes out as it is."""
    draw, accepted, placeless = random.Random(seed), 0, 0
    for _ in range(count):
        file = draw.choice(FILES)
        problems = load(project, file, mutated((SPECS / file).read_text(), draw))
        accepted += problems is None
        placeless += any(p.place is None for p in problems or ())
    assert not placeless
    return f"{count} mutations: {accepted} accepted, {count - accepted} refused, each problem with its place"


def test_some_mutations(project: Path) -> None:
    print(f"\n{fuzz(project, 300, seed=0)}")


@pytest.mark.long
def test_ten_thousand_mutations(project: Path) -> None:
    print(f"\n{fuzz(project, 10_000, seed=1)}")
