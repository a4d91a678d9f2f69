"""The hash of a suite's content is remembered by bytes: copies and times change nothing, changed data are noticed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from projects import project, write
from runs import finish, leaf, planned

from runner.errors import DataError
from runner.files import json_bytes, write_cache
from runner.parts.suites import Suite
from runner.parts.suites.files import Files
from runner.tasks.data import Data

SUITE = '''
kind = "suite"
type = "files"
folder = "data"
[tasks.sentiment]
title = "S"
kind = "classification"
columns = ["text"]
label = "label"
train = "train.tsv"
dev = "dev.tsv"
'''
SPEC = '''
kind = "model"
suite = "suites/small.toml"
combiner = "sum"
schedule = "constant"
[heads.sentiment]
type = "linear"
loss = "cross_entropy"
'''
ROWS = "id\ttext\tlabel\na\tgood\t1\nb\tbad\t0\n"
TRAIN = ROWS.replace("good", "fine")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = project(tmp_path / "here", small=SPEC)
    write(root, {"specs/suites/small.toml": SUITE, "data/train.tsv": TRAIN, "data/dev.tsv": ROWS})
    return root


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Where examples were loaded."""
    found: list[Path] = []
    load = Files.load
    monkeypatch.setattr(Files, "load", lambda suite, project: found.append(project) or load(suite, project))
    return found


def copied(root: Path) -> Path:
    return Path(shutil.copytree(root, root.parent / "there", copy_function=shutil.copyfile))


def touched(root: Path) -> Path:
    for path in root.rglob("*"):
        os.utime(path, (4 * 10**9, 4 * 10**9))
    return root


def renamed(root: Path) -> Path:
    return root.rename(root.parent / "elsewhere")


@pytest.mark.parametrize("change", [copied, touched, renamed])
def test_what_is_the_same_is_neither_loaded_nor_trained_again(root: Path, loads: list[Path],
                                                              change: Callable[[Path], Path]) -> None:
    run = finish(root, "small")
    assert len(loads) == 1
    other = change(root)
    assert [(node.id, node.action) for node in planned(other, "small").nodes.values()] == [(run.id, "reuse")]
    assert len(loads) == 1


def test_changed_data_of_the_same_length_and_time_are_noticed(root: Path) -> None:
    finish(root, "small")
    path = root / "data" / "train.tsv"
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_text(ROWS.replace("good", "gold"))
    os.utime(path, ns=times)
    assert leaf(planned(root, "small"), "small").action == "train"


def test_what_decides_nothing_changes_no_hash(root: Path) -> None:
    run = finish(root, "small")
    write(root, {"data/train.tsv": TRAIN.replace("fine", '"fine"')})  # other bytes, the same examples
    assert leaf(planned(root, "small"), "small").id == run.id


def test_a_missing_file_is_still_an_error(root: Path) -> None:
    planned(root, "small")
    (root / "data" / "dev.tsv").unlink()
    with pytest.raises(DataError, match=r"no data file dev\.tsv"):
        planned(root, "small")


@pytest.mark.parametrize("text", ["", "0" * 63, "no hash at all", "\x00" * 64])
def test_a_damaged_note_is_not_believed(root: Path, loads: list[Path], text: str) -> None:
    before = leaf(planned(root, "small"), "small").id
    (note,) = (root / "registry" / ".cache" / "suites").iterdir()
    note.write_text(text)
    assert leaf(planned(root, "small"), "small").id == before
    assert len(loads) == 2


def test_a_wrong_note_is_found_out_when_the_examples_are_used(root: Path) -> None:
    planned(root, "small")
    (note,) = (root / "registry" / ".cache" / "suites").iterdir()
    write_cache(note, json_bytes({"sha256": "0" * 64, "notes": []}))
    plan = planned(root, "small")
    with pytest.raises(DataError, match="changed meanwhile"):
        plan.data["0" * 64]
    assert set(planned(root, "small").suites) != {"0" * 64}


def test_a_digit_that_changes_is_not_believed(root: Path, loads: list[Path]) -> None:
    """A flipped digit would give every leaf another id, for ever."""
    before = planned(root, "small").suites
    (note,) = (root / "registry" / ".cache" / "suites").iterdir()
    content = note.read_bytes()
    at = content.index(b"sha256") + 12
    note.write_bytes(content[:at] + (b"0" if content[at : at + 1] != b"0" else b"1") + content[at + 1 :])
    count = len(loads)
    assert planned(root, "small").suites == before and len(loads) == count + 1


def test_dropped_rows_are_told_with_every_plan(root: Path) -> None:
    write(root, {"data/dev.tsv": ROWS + "c\tno such label\t7\n"})
    for _ in range(2):  # read, and from the cache
        notes = planned(root, "small", settings=["suite.bad_rows=drop"]).notes
        assert [note for note in notes if "left out" in note] == ['1 row of dev.tsv left out: bad_rows = "drop"']


def test_data_that_change_after_the_plan_are_noticed(root: Path) -> None:
    planned(root, "small")
    plan = planned(root, "small")
    write(root, {"data/dev.tsv": ROWS.replace("good", "great")})
    with pytest.raises(DataError, match="`small` changed meanwhile"):
        plan.data[leaf(plan, "small").suite]


def test_a_file_that_changes_while_it_is_read_leaves_no_note(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = Files.load

    def slow(suite: Files, project: Path) -> Data:
        write(root, {"data/dev.tsv": ROWS.replace("good", "great")})
        return load(suite, project)

    monkeypatch.setattr(Files, "load", slow)
    planned(root, "small")
    assert not (root / "registry").exists()


def test_a_registry_that_cannot_be_written_is_no_hindrance(root: Path) -> None:
    write(root, {"registry/.cache": "a file where a folder should be"})
    assert leaf(planned(root, "small"), "small").action == "train"


def test_a_suite_that_does_not_say_its_inputs_is_loaded_every_time(root: Path, loads: list[Path],
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Files, "inputs", Suite.inputs)
    assert {leaf(planned(root, "small"), "small").id for _ in range(3)} and len(loads) == 3


def test_a_plan_whose_data_are_known_imports_neither_numpy_nor_torch(root: Path) -> None:
    planned(root, "small")
    code = "import sys; from runner.cli import cli; cli(['plan', 'specs/small.toml'], standalone_mode=False); "
    code += "print({'numpy', 'torch', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "set()", done.stderr


def test_one_file_for_two_splits_is_told_with_every_plan(root: Path) -> None:
    (root / "data" / "dev.tsv").write_text("id\ttext\tlabel\nc\tbad\t1\nd\tfine\t1\n")  # in another order
    for _ in range(2):
        (note,) = planned(root, "small").notes
        assert note == ("warning: 2 of 2 examples in dev of `sentiment` have the sentences of an example in train, "
                        "such as id c: its scores say little about new sentences")
    (root / "data" / "dev.tsv").write_text("id\ttext\tlabel\nc\tso bad\t1\nd\tso fine\t1\n")
    assert not planned(root, "small").notes
