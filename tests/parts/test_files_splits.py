"""Folds of the training examples, shares of files, weights: properties, whatever the order of the rows."""

from __future__ import annotations

import collections
import itertools
import json
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from projects import project, write
from runs import planned

from runner.errors import DataError, MtrunError, Place
from runner.part import plain_dump
from runner.parts.suites import Suite
from runner.parts.suites.files import Files, Source
from runner.specs.validation import PartBuilder, as_table
from runner.tasks.data import Examples

MOODS = Source.model_validate({
    "title": "M", "kind": "classification", "classes": 3, "columns": ("text",), "label": "mood", "train": "train.jsonl",
    "dev": {"fold": 1, "folds": 2}})


def load(folder: Path, source: Source) -> dict[str, Examples]:
    return dict(Files(tasks={"x": source}, folder=str(folder)).load(folder).splits["x"])


def with_dev(fold: int, folds: int, **keys: object) -> Source:
    return Source.model_validate(MOODS.model_dump() | {"dev": {"fold": fold, "folds": folds}} | keys)


def written(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("\n".join(map(json.dumps, rows)))


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 5)), min_size=25, max_size=90), st.integers(2, 5),
       st.sampled_from([None, "by"]), st.sampled_from([None, 0.2]), st.randoms())
def test_folds_are_a_partition_of_train_stratified_and_in_groups(
        rows: list[tuple[int, int]], folds: int, group: str | None, test: float | None, chance: random.Random) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines: list[dict[str, object]] = [{"text": f"s {text}", "mood": text % 3, "by": by, "id": f"{n}"}
                                          for n, (text, by) in enumerate(rows)]
        written(folder / "train.jsonl", lines)
        try:
            parts = [load(folder, with_dev(fold + 1, folds, group=group, test=test)) for fold in range(folds)]
        except DataError as error:
            assert "too few different training examples for dev = fold" in str(error)
            return
        of_dev = [set(part["dev"].ids) for part in parts]
        tested = set(parts[0]["test"].ids) if test else set()
        assert not any(one & other for one, other in itertools.combinations([*of_dev, tested], 2))
        assert set().union(*of_dev, tested) == {f"{n}" for n in range(len(rows))}
        for part, dev in zip(parts, of_dev, strict=True):
            assert set(part["train"].ids) == set().union(*of_dev) - dev
            assert not test or set(part["test"].ids) == tested
        key = (lambda n: rows[n][1]) if group else (lambda n: rows[n][0])
        groups = [{key(int(id)) for id in dev} for dev in of_dev]
        assert not any(one & other for one, other in itertools.combinations(groups, 2))
        if not group:
            largest = max(collections.Counter(text for text, _ in rows).values())
            for label in range(3):
                counts = [sum(rows[int(id)][0] % 3 == label for id in dev) for dev in of_dev]
                assert max(counts) - min(counts) <= largest
        chance.shuffle(lines)
        written(folder / "train.jsonl", lines)
        assert set(load(folder, with_dev(1, folds, group=group, test=test))["dev"].ids) == of_dev[0]


@pytest.mark.parametrize("count", [10, 11, 12, 13, 14, 97])
def test_folds_of_different_sentences_differ_by_one_example(tmp_path: Path, count: int) -> None:
    written(tmp_path / "train.jsonl", [{"text": f"s {n}", "mood": n * n % 3} for n in range(count)])
    devs = [load(tmp_path, with_dev(fold, 5))["dev"] for fold in range(1, 6)]
    sizes = [len(dev) for dev in devs]
    assert max(sizes) - min(sizes) <= 1
    for label in range(3):
        of_label = [int((dev.labels == label).sum()) for dev in devs if dev.labels is not None]
        assert max(of_label) - min(of_label) <= 1


def test_other_seeds_make_other_folds(tmp_path: Path) -> None:
    written(tmp_path / "train.jsonl", [{"text": f"s {n}", "mood": n % 3} for n in range(60)])
    assert len({load(tmp_path, with_dev(1, 5, split_seed=seed))["dev"].ids for seed in range(5)}) == 5


def test_folds_without_examples_are_told(tmp_path: Path) -> None:
    written(tmp_path / "train.jsonl", [{"text": "the same", "mood": 1}] * 9)
    with pytest.raises(DataError, match="too few different training examples for dev = fold 2 of 3: dev would have"):
        load(tmp_path, with_dev(2, 3))


SUITE = """
kind = "suite"
type = "files"
folder = "data"
[tasks.moods]
title = "M"
kind = "classification"
classes = 3
columns = ["text"]
label = "mood"
train = "train.jsonl"
dev = {fold = 1, folds = 3}
"""
MODEL = """
kind = "model"
suite = "suites/moods.toml"
combiner = "sum"
schedule = "constant"
[heads.moods]
type = "linear"
loss = "cross_entropy"
"""


def test_folds_are_set_on_the_command_line_and_swept(tmp_path: Path) -> None:
    root = project(tmp_path, one=MODEL, all=MODEL + '[sweep]\n"suite.tasks.moods.dev.fold" = [1, 2, 3]\n')
    write(root, {"specs/suites/moods.toml": SUITE})
    (root / "data").mkdir()
    written(root / "data" / "train.jsonl", [{"text": f"s {n}", "mood": n % 3} for n in range(30)])
    swept = planned(root, "all")
    single = [planned(root, "one", settings=[f"suite.tasks.moods.dev.fold={fold}"]) for fold in (1, 2, 3)]
    assert [*swept.nodes] == [id for plan in single for id in plan.nodes] and len({*swept.nodes}) == 3
    dev = [id for node in swept.nodes.values() for id in swept.data[node.suite].splits["moods"]["dev"].ids]
    assert len(dev) == 30 and {*dev} == {f"{n}" for n in range(1, 31)}
    with pytest.raises(MtrunError, match="there is no `fold` 4 of 3"):
        planned(root, "one", settings=["suite.tasks.moods.dev.fold=4"])


def test_a_suite_is_the_same_after_a_job_wrote_it_down() -> None:
    """A worker reads the suite from JSON: folds, shares of files, joined columns, columns of labels."""
    source = Source.model_validate({
        "title": "M", "kind": "multilabel", "columns": (("a", "b"), "c"), "label": ("x", "y"), "weight": "w",
        "train": ("t", {"file": "u", "share": 0.5}), "dev": {"fold": 2, "folds": 3}, "header": ("a", "b"),
        "quotes": False})
    suite = Files(tasks={"x": source})
    builder = PartBuilder(Path())
    table = as_table(json.loads(json.dumps(plain_dump(suite))), Place("job"))
    assert builder.part(Suite, table, table.place) == suite, builder.problems  # type: ignore[type-abstract]


# Shares of files ------------------------------------------------------------------------------------------------------

def portioned(*train: object, **keys: object) -> Source:
    return Source.model_validate(MOODS.model_dump() | {"train": train, "dev": "dev.jsonl"} | keys)


def test_a_share_of_a_file_is_drawn_row_by_row(tmp_path: Path) -> None:
    big: list[dict[str, object]] = [{"text": f"big {n}", "mood": n % 3} for n in range(4000)]
    written(tmp_path / "big.jsonl", big)
    written(tmp_path / "own.jsonl", [{"text": f"own {n}", "mood": n % 3} for n in range(50)])
    written(tmp_path / "dev.jsonl", [{"text": "of dev", "mood": 0}])
    drawn = {share: load(tmp_path, portioned("own.jsonl", {"file": "big.jsonl", "share": share}))["train"]
             for share in (0.05, 0.1, 0.5)}
    for share, train in drawn.items():
        texts = [text for text in train.first if text.startswith("big")]
        assert len(train) == len(texts) + 50 and len(set(train.ids)) == len(train)
        assert abs(len(texts) - 4000 * share) < 4 * (4000 * share * (1 - share)) ** 0.5
    assert {*drawn[0.05].first} < {*drawn[0.1].first} < {*drawn[0.5].first}
    other = load(tmp_path, portioned("own.jsonl", {"file": "big.jsonl", "share": 0.1}, split_seed=1))["train"]
    assert len({*other.first} & {*drawn[0.1].first}) < 150
    random.Random(0).shuffle(big)
    written(tmp_path / "big.jsonl", big)
    again = load(tmp_path, portioned({"file": "big.jsonl", "share": 0.1}, "own.jsonl"))["train"]
    assert {*again.first} == {*drawn[0.1].first}


def test_a_drawn_share_is_divided_evenly(tmp_path: Path) -> None:
    """Which rows are drawn and which of them become dev are independent draws."""
    written(tmp_path / "big.jsonl", [{"text": f"big {n}", "mood": n % 3} for n in range(3000)])
    source = Source.model_validate(MOODS.model_dump() | {"train": {"file": "big.jsonl", "share": 0.2}, "dev": 0.25})
    splits = load(tmp_path, source)
    total = len(splits["train"]) + len(splits["dev"])
    assert abs(total - 600) < 100 and abs(len(splits["dev"]) - total / 4) <= 2


def test_rows_are_numbered_through_all_files_and_all_rows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,mood\none,1\nonly one cell\ntwo,2\n")
    (tmp_path / "b.csv").write_text("text,mood\nthree,0\n")
    written(tmp_path / "dev.jsonl", [{"text": "of dev", "mood": 0}])
    data = Files(tasks={"x": portioned("a.csv", "b.csv")}, folder=str(tmp_path), bad_rows="drop").load(tmp_path)
    assert data.splits["x"]["train"].ids == ("1", "3", "4") and data.dropped == {"a.csv": 1}


# Weights --------------------------------------------------------------------------------------------------------------

def test_weights_are_those_of_the_training_examples(tmp_path: Path) -> None:
    written(tmp_path / "train.jsonl", [{"text": f"s {n}", "mood": n % 3, "w": (n + 1) / 4} for n in range(30)])
    written(tmp_path / "dev.jsonl", [{"text": "of dev", "mood": 0}])
    plain, weighted = (load(tmp_path, portioned("train.jsonl", weight=weight)) for weight in (None, "w"))
    assert weighted["train"].weights.tolist() == [(n + 1) / 4 for n in range(30)]
    assert plain["train"].weights is None and weighted["dev"].weights is None
    shared = load(tmp_path, Source.model_validate(MOODS.model_dump() | {"dev": 0.2, "weight": "w"}))
    assert shared["dev"].weights is None
    assert shared["train"].weights.tolist() == [int(id) / 4 for id in shared["train"].ids]


@pytest.mark.parametrize("weight", ["0", "-1", "", "nan", "inf", "heavy", "1_0"])
def test_weights_that_are_none_make_bad_rows(tmp_path: Path, weight: str) -> None:
    (tmp_path / "train.csv").write_text(f"text,mood,w\none,1,2\ntwo,2,{weight}\n")
    written(tmp_path / "dev.jsonl", [{"text": "of dev", "mood": 0}])
    suite = Files(tasks={"x": portioned("train.csv", weight="w")}, folder=str(tmp_path))
    with pytest.raises(DataError) as caught:
        suite.load(tmp_path)
    (problem,) = caught.value.problems
    assert problem.message == f"row has the weight `{weight}` in `w`; expected a number above 0"
    assert problem.place and problem.place.line == 3
    assert suite.model_copy(update={"bad_rows": "drop"}).load(tmp_path).splits["x"]["train"].weights.tolist() == [2]
