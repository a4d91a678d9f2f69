"""The suites that come with the project, on tiny files of the layout of the real ones."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest

from runner.parts.suites import Suite
from runner.parts.suites.files import Files
from runner.specs.toml import read
from runner.specs.validation import PartBuilder

SUITES = Path(__file__).parents[2] / "specs" / "suites"

PARSES = ["sentence1_binary_parse", "sentence2_binary_parse", "sentence1_parse", "sentence2_parse"]
HEADERS = {
    "SST-2": ["sentence", "label"], "MRPC": ["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"],
    "STS-B": ["index", "genre", "filename", "year", "old_index", "source1", "source2", "sentence1", "sentence2",
              "score"],
    "QQP": ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"],
    "MNLI": ["index", "promptID", "pairID", "genre", *PARSES, "sentence1", "sentence2", "label1", "gold_label"],
    "QNLI": ["index", "question", "sentence", "label"], "RTE": ["index", "sentence1", "sentence2", "label"],
    "WNLI": ["index", "sentence1", "sentence2", "label"]}
"""Header line of the train and dev files of GLUE; those of CoLA have none."""
TEST_HEADERS = {"CoLA": ["index", "sentence"], "SST-2": ["index", "sentence"],
                "MRPC": ["index", *HEADERS["MRPC"][1:]], "QQP": ["id", "question1", "question2"]}
"""Header line of the test files where more differs than that the label is missing."""
LABELS = {"STS-B": ["0.000", "2.500", "5.000"], "MNLI": ["neutral", "entailment", "contradiction"],
          "QNLI": ["entailment", "not_entailment"] * 2, "RTE": ["not_entailment", "entailment"] * 2}
MEANT = {"STS-B": [0, 2.5, 5], "MNLI": [1, 0, 2], "QNLI": [1, 0, 1], "RTE": [0, 1, 0]}
METRICS = {"cola": ("mcc",), "sst2": ("accuracy",), "mrpc": ("f1", "accuracy"), "stsb": ("pearson_spearman",),
           "qqp": ("f1", "accuracy"), "mnli": ("accuracy",), "qnli": ("accuracy",), "rte": ("accuracy",),
           "wnli": ("accuracy",)}
LABEL_COLUMNS = ("label", "Quality", "score", "is_duplicate", "gold_label")


def shipped(name: str, folder: Path) -> Files:
    table = read(SUITES / f"{name}.toml", name)
    del table["kind"]
    builder = PartBuilder(SUITES)
    suite = builder.part(Suite, table, table.place)  # type: ignore[type-abstract]
    assert isinstance(suite, Files), builder.problems
    return suite.model_copy(update={"folder": str(folder)})


def cell(column: str, row: int, name: str, split: str) -> str:
    if column in LABEL_COLUMNS:
        return LABELS.get(name, ["1", "0", "1"])[row]
    if column in ("index", "id"):
        return str(row)
    return f'"{column} {row} of {name} {split}' + '" he said' * row  # quotes that no cell closes, or that one closes


def write_glue(folder: Path) -> None:
    """Write three rows of each file as the benchmark's are: no quoting, test files without labels."""
    for name in ("CoLA", *HEADERS):
        splits = {"train": "train", "dev": "dev", "test": "test"}
        if name == "MNLI":
            splits |= {"dev": "dev_matched", "test": "test_matched"}
        for split, file in splits.items():
            header = ["source", "label", "star", "sentence"] if name == "CoLA" else HEADERS[name]
            if split == "test":
                header = TEST_HEADERS.get(name) or [column for column in header if column not in LABEL_COLUMNS]
            rows = [[cell(column, row, name, split) for column in header] for row in range(3)]
            if name == "QQP" and split == "train":
                rows.append(["9", "7", "8", "a question that the file cuts off"])
            lines = rows if name == "CoLA" and split != "test" else [header, *rows]
            path = folder / name / f"{file}.tsv"
            path.parent.mkdir(exist_ok=True)
            path.write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")


def test_glue_is_read_as_datasets_reads_it(tmp_path: Path) -> None:
    write_glue(tmp_path)
    suite = shipped("glue", tmp_path)
    data = suite.load(tmp_path)
    assert data.dropped == {"QQP/train.tsv": 1}
    assert {name: task.metrics for name, task in data.tasks.items()} == METRICS
    for name, source in suite.tasks.items():
        folder = str(source.train).partition("/")[0]
        for split, examples in data.splits[name].items():
            text = (tmp_path / source.patterns(split)[0].name).read_text()
            first = list(source.header) if folder == "CoLA" and split != "test" else None
            rows = list(csv.DictReader(text.splitlines(), first, delimiter="\t", quoting=csv.QUOTE_NONE))[:3]
            read = [tuple(row[column] for column in source.columns) for row in rows]
            assert examples.sentences() == read, (name, split)
            assert (examples.labels is None) == (split == "test")
            if examples.labels is not None:
                assert examples.labels.tolist() == MEANT.get(folder, [1, 0, 1]), (name, split)
            assert examples.ids == (("0", "1", "2") if source.id else ("1", "2", "3"))


SETS = {"sts12-sts": ("train", "test"), **{f"sts{year}-sts": ("test",) for year in (13, 14, 15, 16)},
        "stsbenchmark-sts": ("train", "validation", "test"), "sickr-sts": ("test",)}


def test_sts_is_read_as_mteb_lays_it_out(tmp_path: Path) -> None:
    for name, splits in SETS.items():
        (tmp_path / name).mkdir()
        for split in splits:
            rows = [{"split": split, "sentence1": f"{name} {split} {n}", "sentence2": "b", "score": 1.25 * n}
                    for n in range(5)]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (tmp_path / name / f"{split}.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    data = shipped("mteb-sts", tmp_path).load(tmp_path)
    assert [*data.tasks] == ["sts12", "sts13", "sts14", "sts15", "sts16", "stsb", "sickr"]
    for name, splits in data.splits.items():
        assert data.tasks[name].metrics == ("spearman",)
        assert all(part.labels is not None and part.labels.tolist() == [0, 1.25, 2.5, 3.75, 5]
                   for part in splits.values())
        own = {"stsb": "stsbenchmark", "sickr": "sickr"}.get(name, name)
        assert splits["test"].first[0] == f"{own}-sts test 0"
        assert splits["train"].first[0] == f"{own if name == 'sts12' else 'stsbenchmark'}-sts train 0"


@pytest.mark.parametrize("name", ["glue", "mteb-sts"])
def test_missing_files_are_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(Exception, match=r"no data file .*(CoLA/dev\.tsv|sickr-sts/test\.jsonl\.gz)"):
        shipped(name, tmp_path).load(tmp_path)
