"""Multi-label tasks of files: labels in one cell, in a list or in columns, against scikit-learn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import MultiLabelBinarizer

from runner.errors import DataError
from runner.parts.suites.files import Files, Source
from runner.tasks.data import Data

NAMES = ("sport", "politics", "arts")
TOPICS = Source(title="T", kind="multilabel", labels=NAMES, columns=("text",), label="topics", train="train", dev="dev")
SETS = st.lists(st.lists(st.sampled_from(NAMES), max_size=4), min_size=1, max_size=8)

WRITERS = {
    "bars": lambda sets: pd.Series(["|".join(names) for names in sets]),
    "semicolons and blanks": lambda sets: pd.Series([" ; ".join(names) for names in sets]),
    "commas": lambda sets: pd.Series([", ".join(names) for names in sets]),
    "lists": lambda sets: pd.Series([json.dumps(names) for names in sets]),
    "lists of Python": lambda sets: pd.Series([str(names) for names in sets]),
}


def load(folder: Path, source: Source, **options: str) -> Data:
    return Files(tasks={"x": source}, folder=str(folder), **options).load(folder)


def expected(sets: list[list[str]]) -> list[list[float]]:
    return MultiLabelBinarizer(classes=NAMES).fit_transform(sets).astype(float).tolist()


def frame_of(sets: list[list[str]]) -> pd.DataFrame:
    return pd.DataFrame({"text": [f"sentence {n}" for n in range(len(sets))], "topics": sets})


def add_dev(folder: Path) -> None:
    (folder / "dev").write_text('{"text": "of dev", "topics": ["arts"]}\n')


@pytest.mark.parametrize("form", WRITERS)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sets=SETS)
def test_cells_of_several_names_are_those_of_scikit_learn(tmp_path: Path, form: str, sets: list[list[str]]) -> None:
    add_dev(tmp_path)
    frame_of(sets).assign(topics=WRITERS[form](sets)).to_csv(tmp_path / "train", index=False, sep="\t")
    labels = load(tmp_path, TOPICS).splits["x"]["train"].labels
    assert labels is not None and labels.dtype == np.float64 and labels.tolist() == expected(sets)


@pytest.mark.parametrize("form", ["json", "jsonl", "parquet", "feather"])
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sets=SETS)
def test_lists_are_those_of_scikit_learn(tmp_path: Path, form: str, sets: list[list[str]]) -> None:
    add_dev(tmp_path)
    frame, path = frame_of(sets), tmp_path / "train"
    if form in ("json", "jsonl"):
        frame.to_json(path, orient="records", lines=form == "jsonl")
    else:
        getattr(frame, f"to_{form}")(path)
    labels = load(tmp_path, TOPICS).splits["x"]["train"].labels
    assert labels is not None and labels.tolist() == expected(sets)


@pytest.mark.parametrize("yes", [1, 1.0, True, "yes"])
def test_a_column_for_each_label(tmp_path: Path, yes: object) -> None:
    no = {"yes": "no"}.get(str(yes), type(yes)(0))
    pd.DataFrame({"text": ["a", "b", "c"], "sport": [yes, no, yes], "arts": [no, no, yes]}).to_csv(
        tmp_path / "train", index=False)
    pd.DataFrame({"text": ["d"], "sport": [no], "arts": [yes]}).to_parquet(tmp_path / "dev")
    source = Source(title="T", kind="multilabel", label=("sport", "arts"), columns=("text",), train="train", dev="dev")
    data = load(tmp_path, source)
    assert data.splits["x"]["train"].labels.tolist() == [[1, 0], [0, 0], [1, 1]]
    assert data.tasks["x"].names == ("sport", "arts") and data.tasks["x"].outputs == 2
    named = load(tmp_path, source.model_copy(update={"labels": ("Sport", "Arts")}))
    assert named.tasks["x"].names == ("Sport", "Arts") and named.sha256() != data.sha256()


def test_a_label_may_hold_a_separator_or_be_a_number(tmp_path: Path) -> None:
    rows = [{"text": "a", "topics": "rock, pop|jazz"}, {"text": "b", "topics": ["jazz"]}, {"text": "c", "topics": None}]
    (tmp_path / "train").write_text("\n".join(map(json.dumps, rows)))
    pd.DataFrame({"text": ["d", "e"], "topics": [3.0, None]}).to_csv(tmp_path / "dev", index=False)
    source = TOPICS.model_copy(update={"labels": ("rock, pop", "jazz", "3")})
    splits = load(tmp_path, source).splits["x"]
    assert splits["train"].labels.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert splits["dev"].labels.tolist() == [[0, 0, 1], [0, 0, 0]]


def test_what_is_no_label_is_named_with_file_and_line(tmp_path: Path) -> None:
    add_dev(tmp_path)
    (tmp_path / "train").write_text('{"text": "a", "topics": ["sport"]}\n{"text": "b", "topics": ["sprot"]}\n'
                                    '{"text": "c", "topics": [["arts"]]}\n{"text": "d", "topics": {"arts": 1}}\n'
                                    '{"text": ["e"], "topics": []}\n')
    with pytest.raises(DataError) as caught:
        load(tmp_path, TOPICS)
    assert [(p.place.line, p.message) for p in caught.value.problems if p.place] == [
        (2, "row has the label `sprot` in `topics`; expected any of sport, politics, arts"),
        (3, "row has a list in `topics`, not text or a number"),
        (4, "row has a dict in `topics`, not text or a number"),
        (5, "row has a list in `text`, not text or a number")]
    data = load(tmp_path, TOPICS, bad_rows="drop")
    assert data.splits["x"]["train"].first == ("a",) and data.dropped == {"train": 4}


@pytest.mark.parametrize(("cells", "message"), [
    ("2,0", "row has the label `2` in `sport`; expected 0 or 1"), ("1,", "row has no `arts`"),
    ("1,maybe", "row has the label `maybe` in `arts`; expected 0 or 1")])
def test_what_is_neither_0_nor_1_is_named(tmp_path: Path, cells: str, message: str) -> None:
    for name, row in {"train": cells, "dev": "1,1"}.items():
        (tmp_path / name).write_text(f"text,sport,arts\n{name},{row}\n")
    source = TOPICS.model_copy(update={"label": ("sport", "arts"), "labels": ()})
    with pytest.raises(DataError) as caught:
        load(tmp_path, source)
    assert message in [problem.message for problem in caught.value.problems]


@pytest.mark.parametrize(("rows", "labels"), [
    (['{"text": "t"}'], None), (['{"text": "t", "topics": ""}'], None), (['{"text": "t", "topics": null}'], None),
    (['{"text": "t", "topics": []}'], [[0, 0, 0]]),
    (['{"text": "t", "topics": ""}', '{"text": "u", "topics": "arts"}'], [[0, 0, 0], [0, 0, 1]])])
def test_labels_of_a_test_file_may_be_unknown(tmp_path: Path, rows: list[str], labels: list[list[int]] | None) -> None:
    add_dev(tmp_path)
    (tmp_path / "train").write_text("text,topics\na,sport\n")
    (tmp_path / "test").write_text("\n".join(rows))
    found = load(tmp_path, TOPICS.model_copy(update={"test": "test"})).splits["x"]["test"].labels
    assert found is labels is None or found.tolist() == labels


def test_shares_are_stratified_by_the_set_of_labels(tmp_path: Path) -> None:
    sets = ["", "sport", "sport|arts", "arts|sport|politics"]
    lines = [f"sentence {n},{sets[n % 4]}" for n in range(400)]
    (tmp_path / "train").write_text("\n".join(["text,topics", *lines]))
    splits = load(tmp_path, TOPICS.model_copy(update={"dev": 0.2, "test": 0.1})).splits["x"]
    for split, share in {"train": 0.7, "dev": 0.2, "test": 0.1}.items():
        found, counts = np.unique(splits[split].labels, axis=0, return_counts=True)
        assert len(found) == 4 and set(counts.tolist()) == {round(100 * share)}
