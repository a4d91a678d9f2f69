"""Suites read from files of rows, such as those of CS 224N: delimited tables, JSON, Parquet, Arrow."""

from __future__ import annotations

import glob
import hashlib
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self

import numpy as np
from pydantic import Field, model_validator

from ...errors import DataError, Place, Problem, StorageError, did_you_mean
from ...files import reported, sha256
from ...part import Part
from ...tasks.data import SPLITS, Data, Examples, Kind, Task
from ...tasks.row_files import Rows, open_rows
from . import Suite

DROP = 'correct the row, or drop such rows: --set suite.bad_rows=drop, or `bad_rows = "drop"` at the top of the suite'
"""Hint for a row that cannot be used."""

SHOWN = 5
"""Bad rows of one kind that are shown; the others are counted."""

Name = Annotated[str, Field(min_length=1)]
"""File in the suite's folder, or a pattern."""

Split = Name | Annotated[tuple[Name, ...], Field(min_length=1)] | Annotated[float, Field(gt=0, lt=1)]
"""File, pattern or several of them; or the share of the training examples that becomes this split."""

YES, NO = ("true", "yes"), ("false", "no")
"""Labels of a binary task besides 1 and 0, in any case."""


class Source(Part):
    """One task: its type, files and columns."""

    title: str
    """Column title in tables, such as SST."""
    kind: Kind
    """classification: one of several classes; binary: yes or no; multilabel: any of several classes; regression: a
    number."""
    classes: int = Field(default=2, ge=2)
    """Number of classes of a classification whose labels are the numbers 0 to classes - 1."""
    labels: tuple[str, ...] = Field(default=(), json_schema_extra={"later": True})
    """Labels as they stand in the files, such as `["politics", "sports"]`; of a binary task, that for no, then yes."""
    low: float = 0.0
    """Lowest label of a regression."""
    high: float = 1.0
    """Highest label of a regression."""
    columns: tuple[str, ...] = Field(min_length=1, max_length=2)
    """Columns of the sentence, or of the two sentences of a pair."""
    label: str
    """Column of the label."""
    id: str | None = None
    """Column of the example's id, unique within a split; by default `id`, and in files without such a column the
    number of the row, counted from 1 through all files of a split."""
    train: Name | Annotated[tuple[Name, ...], Field(min_length=1)]
    """File of the training examples; or several, or a pattern such as `train-*.parquet`."""
    dev: Split
    """File of the dev examples, on which epochs, members and weights are chosen; or their share of `train`, as 0.1."""
    test: Split | None = None
    """File of the test examples, on which nothing is chosen; labels may be missing. Or their share of `train`."""
    group: str | None = Field(default=None, json_schema_extra={"later": True})
    """Column whose equal values stay in one split where a share is split off; by default equal sentences do."""
    split_seed: int = Field(default=0, json_schema_extra={"later": True})
    """Seed of the splits that are shares."""
    metrics: tuple[str, ...] = Field(default=(), json_schema_extra={"later": True})
    """Metrics, such as `["macro_f1", "accuracy"]`; the first one leads: it is the task's column, chooses epochs and
    members, and counts in the overall. By default accuracy; Pearson's r for a regression."""
    counts: float | bool = Field(default=1.0, ge=0, json_schema_extra={"later": True})
    """Weight of the task in the overall; `false` for an auxiliary task, which is trained and shown but not counted."""

    @model_validator(mode="after")
    def _range_is_not_empty(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"`low` must be below `high`; they are {self.low:g} and {self.high:g}")
        return self

    @model_validator(mode="after")
    def _labels_fit_the_kind(self) -> Self:
        if not self.labels:
            return self
        if self.kind == "regression":
            raise ValueError("`labels` are words, and a regression has numbers; leave them out")
        if any(not label or label != label.strip() for label in self.labels):
            raise ValueError("`labels` has a label that is empty or has blanks at an end; cells are read without them")
        if repeated := [one for one in self.labels if self.labels.count(one) > 1]:
            raise ValueError(f"`labels` has `{repeated[0]}` more than once")
        count = len(self.labels)
        if count < 2 or (self.kind == "binary" and count > 2) or self.classes not in (2, count):
            wanted = "2" if self.kind == "binary" else f"{self.classes}" if self.classes > 2 else "at least 2"
            raise ValueError(f"`labels` has {count} labels; expected {wanted}")
        return self

    @model_validator(mode="after")
    def _shares_leave_training_examples(self) -> Self:
        if sum(self.shares().values()) >= 1:
            raise ValueError("`dev` and `test` are shares of `train`, which must leave some of it: together below 1")
        return self

    def shares(self) -> dict[str, float]:
        """Return the share of the training examples of each split that has no file."""
        return {split: share for split in ("dev", "test") if isinstance(share := getattr(self, split), float | int)}

    def shown_shares(self) -> str:
        """Return the shares as text, as in `dev = 0.1 and test = 0.2`."""
        return " and ".join(f"{split} = {share:g}" for split, share in self.shares().items())

    def patterns(self, split: str) -> tuple[str, ...]:
        """Return the files and patterns of a split."""
        value = getattr(self, split)
        return (value,) if isinstance(value, str) else value if isinstance(value, tuple) else ()

    def task(self) -> Task:
        """Return the task without its files and columns."""
        return Task(title=self.title, kind=self.kind, classes=len(self.labels) or self.classes, low=self.low,
                    high=self.high, sentences=2 if len(self.columns) == 2 else 1, labels=self.labels,
                    metrics=self.metrics, counts=float(self.counts))


class Files(Suite):
    """Files of rows: delimited tables, JSON lines, JSON, Parquet, Arrow; also compressed.

    Columns are found by name. Tables are separated by tabs, commas or semicolons and quoted as pandas writes them; a
    header may lack the name of its first column (a pandas index). A folder that `datasets` saved counts as its files.
    """

    type = "files"

    tasks: dict[str, Source]
    """The tasks by name; if they are sentiment, paraphrase and similarity, specs run on the demo suite, too."""
    folder: str | None = None
    """Folder of the files, relative to the project; by default that of MTRUN_DATA, else `data`."""
    bad_rows: Literal["error", "drop"] = "error"
    """Handling of rows that lack a sentence, an id or a valid label; the number of dropped rows is recorded."""

    def meanings(self) -> Mapping[str, Task]:
        """Return the tasks by name, without reading any data."""
        return {name: source.task() for name, source in self.tasks.items()}

    def inputs(self, project: Path) -> dict[str, str] | None:
        """Return the sha256 of each data file; None if one cannot be read, which `load` reports with its place."""
        try:
            splits = [files for by_split in self.data_files(project).values() for files in by_split.values()]
            files = {file for names in splits for file in names}
            return {file: sha256(self._folder(project) / file) for file in sorted(files)}
        except (StorageError, DataError):
            return None

    def data_files(self, project: Path) -> Mapping[str, Mapping[str, Sequence[str]]]:
        """Return the names of the files by task and split. Raise DataError if a folder has none."""
        return {name: {split: self._files(source, split, project) for split in SPLITS}
                for name, source in self.tasks.items()}

    def _folder(self, project: Path) -> Path:
        """Return the folder of the files."""
        folder = os.path.expanduser(self.folder or os.environ.get("MTRUN_DATA") or "data")
        above = Path.cwd() if not self.folder and os.environ.get("MTRUN_DATA") else project
        return Path(os.path.normpath(above / folder))

    def _files(self, source: Source, split: str, project: Path) -> list[str]:
        """Return the names of the files of a split. Raise DataError if there are none."""
        folder = self._folder(project)
        files = [file for pattern in source.patterns(split) for file in _matches(folder, pattern)]
        if repeated := [file for file in files if files.count(file) > 1]:
            raise DataError(Problem(f"the file {repeated[0]} is named twice for {split}", Place(str(folder))))
        return files

    def load(self, project: Path) -> Data:
        """Load the examples; relative folders are relative to `project`. Raise DataError with file and line."""
        folder = self._folder(project)
        self._check_files(folder)
        splits: dict[str, dict[str, Examples]] = {}
        problems: list[Problem] = []
        dropped: dict[str, int] = {}
        all_files = self.data_files(project)
        for name, source in self.tasks.items():
            files = all_files[name]
            problems += _same_files(name, files, folder)
            rows: dict[str, list[_Row]] = {}
            for split in filter(files.get, SPLITS):
                reader = _Reader(source, folder, split, self.bad_rows == "drop")
                rows[split] = reader.read(files[split])
                problems += reader.broken
                if self.bad_rows == "drop":
                    dropped |= reader.count_bad()
                else:
                    problems += reader.bad
            if source.shares() and "train" in rows and rows["train"]:
                rows |= _divided(rows["train"], source)
                problems += [Problem(f"`{name}` has too few different training examples for {source.shown_shares()}: "
                                     f"{split} would have none", Place(str(folder / files["train"][0])))
                             for split in ("train", *source.shares()) if not rows[split]]
            splits[name] = {split: _examples(rows[split], source) for split in SPLITS if split in rows}
        if problems:
            raise DataError(*_grouped(problems))
        return Data(self.meanings(), splits, dropped)

    def _check_files(self, folder: Path) -> None:
        """Raise DataError if a named file is missing, or if no file matches a pattern."""
        names = sorted({name for source in self.tasks.values() for split in SPLITS for name in source.patterns(split)})
        if missing := [name for name in names if not _matches(folder, name)]:
            others = [path.name for path in folder.iterdir()] if folder.is_dir() else []
            them = "it" if len(missing) == 1 else "them"
            key = "`folder` in the suite" if self.folder else "MTRUN_DATA"
            raise DataError(Problem(
                f"no data file {', '.join(missing)} in {folder}",
                notes=tuple(filter(None, [did_you_mean(missing[0], others)])),
                hint=f"set {key} to the folder that holds {them}, or pass --set suite.folder=FOLDER"))


def _matches(folder: Path, pattern: str) -> list[str]:
    """Return the names of the files that a name or a pattern stands for, sorted. Raise StorageError."""
    path = folder / pattern
    with reported("read", path):
        if path.is_file():
            return [pattern]
        if path.is_dir():  # as `datasets` saves a split
            pattern = f"{glob.escape(pattern)}/*.arrow"
        return sorted(name for name in glob.glob(pattern, root_dir=folder, recursive=True) if (folder / name).is_file())


def _same_files(task: str, files: Mapping[str, Sequence[str]], folder: Path) -> list[Problem]:
    """Return a problem for each file of a split whose content is a file of another split."""
    seen: dict[str, str] = {}
    problems = []
    for split, names in files.items():
        for name in names:
            with reported("read", folder / name):
                content = sha256(folder / name)
            if content in seen:
                problems.append(Problem(
                    f"{split} of `{task}` is the same file as {seen[content]}: its scores would say nothing about new "
                    "sentences", Place(str(folder / name)),
                    hint="split a share of the training examples off: dev = 0.1" if split == "dev" else
                    "leave `test` out, or split a share of the training examples off: test = 0.1"))
            seen.setdefault(content, f"{split}, {name}")
    return problems


class _Row(NamedTuple):
    """A row that has all columns."""

    file: str
    line: int
    id: str
    sentences: tuple[str, ...]
    label: str | None
    """None in a test file without this column."""
    group: str


@dataclass
class _Reader:
    """Parser of the files of one split; `bad` are problems of rows that can be dropped, `broken` all others."""

    source: Source
    folder: Path
    split: str
    drops: bool
    """Whether bad rows are left out."""
    bad: list[Problem] = field(default_factory=list)
    broken: list[Problem] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    """Place of a file -> its name in the suite."""

    def read(self, files: Sequence[str]) -> list[_Row]:
        """Return the valid rows."""
        rows: list[_Row] = []
        for file in files:
            path = self.folder / file
            self.files[str(path)] = file
            try:
                with reported("read", path):
                    rows.extend(self._rows(file, open_rows(path, str(path), self._columns()), len(rows)))
            except (DataError, StorageError) as error:
                self.broken += error.problems
        valid = self._valid(rows)
        if not valid and not self.broken:
            self.broken.append(Problem(f"{' and '.join(files)} has no usable example",
                                       Place(str(self.folder / files[0])), hint="a split needs at least one"))
        return valid

    def count_bad(self) -> dict[str, int]:
        """Return the number of rows that cannot be used, by file."""
        return dict(Counter(self.files[problem.place.file] for problem in self.bad if problem.place))

    def _columns(self) -> list[str]:
        source = self.source
        return [source.id or "id", *source.columns, source.label, *filter(None, [source.group])]

    def _rows(self, file: str, rows: Rows, before: int) -> Iterator[_Row]:
        """Yield the well-formed rows of a file. Raise DataError for a missing column."""
        source = self.source
        id_at = rows.index(source.id) if source.id else rows.index("id") if "id" in rows.header else None
        at = [rows.index(column) for column in source.columns]
        needs_label = self.split != "test" or source.label in rows.header
        label_at = rows.index(source.label) if needs_label else None
        group_at = rows.index(source.group) if source.group and self.split == "train" else None
        shared: dict[str, str] = {}  # equal labels are one object
        for number, row in enumerate(rows.rows(), before + 1):
            if row.problem:
                self._add_bad(row.problem)
                continue
            label = None if label_at is None else row.cells[label_at]
            yield _Row(file, row.line, str(number) if id_at is None else row.cells[id_at],
                       tuple(row.cells[position].strip() for position in at),
                       label if label is None else shared.setdefault(label, label),
                       "" if group_at is None else row.cells[group_at])

    def _valid(self, rows: Sequence[_Row]) -> list[_Row]:
        """Return rows with unique ids, sentences and valid labels; add problems of others to `bad`."""
        valid: list[_Row] = []
        seen: set[str] = set()
        is_labelled = self._is_labelled(rows)
        if is_labelled and (problem := self._foreign_labels(rows)):
            self.broken.append(problem)
            return []
        for row in rows:
            if wrong := self._wrong(row, seen) or (self._wrong_label(row.label or "") if is_labelled else ""):
                self._add_bad(Problem(f"row {wrong}", Place(str(self.folder / row.file), row.line)))
            else:
                seen.add(row.id)
                valid.append(row if is_labelled else row._replace(label=None))
        return valid

    def _add_bad(self, problem: Problem) -> None:
        """Record the problem of a row that can be dropped."""
        hint = "; ".join(filter(None, [problem.hint, DROP]))
        self.bad.append(Problem(problem.message, problem.place, problem.notes, hint))

    def _is_labelled(self, rows: Sequence[_Row]) -> bool:
        """Return whether rows have labels; hidden labels of a test file are all empty or all -1 (as in GLUE)."""
        texts = {(row.label or "").strip() for row in rows}
        is_hidden = texts <= {""} or (texts <= {"-1", "-1.0"} and not is_valid(-1.0, self.source))
        return self.split != "test" or not is_hidden

    def _foreign_labels(self, rows: Sequence[_Row]) -> Problem | None:
        """Return the problem with labels that are words, or numbers from 1, where `labels` does not name them."""
        source = self.source
        if source.labels or source.kind == "regression":
            return None
        texts = {text for row in rows if (text := (row.label or "").strip())}
        numbers = {text for text in texts if not math.isnan(parsed(text, source))}
        limit = 2 if source.kind == "binary" else 100
        from_one = not self.drops and len(texts) == source.classes and len(numbers) == len(texts) and not all(
            is_valid(parsed(text, source), source) for text in texts)
        if not 2 <= len(texts) <= limit or (numbers and not from_one):
            return None
        names = sorted(texts, key=lambda text: (parsed(text, source), text) if from_one else (0.0, text))
        what = "numbers that do not count from 0" if from_one else "words"
        listed = ", ".join(f'"{name}"' for name in names)
        return Problem(f"`{source.label}` holds {what}: {', '.join(names[:10])}",
                       Place(str(self.folder / rows[0].file), rows[0].line),
                       hint=f"name them in the suite, in the order of the classes: labels = [{listed}]")

    def _wrong(self, row: _Row, seen: set[str]) -> str:
        """Return the problem with the id or the sentences of a row, or an empty string."""
        if not row.id.strip():
            return f"has no `{self.source.id or 'id'}`"
        for column, sentence in zip(self.source.columns, row.sentences, strict=True):
            if not sentence:
                return f"has no `{column}`"
        if row.id in seen:
            return f"repeats the id {row.id}"
        return "" if row.id.isprintable() else "has an id with control characters"

    def _wrong_label(self, text: str) -> str:
        """Return the problem with the label of a row, or an empty string."""
        source = self.source
        if not text.strip():
            return f"has no `{source.label}`" + ", which other rows of this test file have" * (self.split == "test")
        if is_valid(parsed(text, source), source):
            return ""
        if source.labels:
            return f"has the label `{text}` in `{source.label}`; expected one of {', '.join(source.labels)}"
        last = (source.classes if source.kind == "classification" else 2) - 1
        expected = (f"a number from {source.low:g} to {source.high:g}" if source.kind == "regression"
                    else f"a whole number from 0 to {last}")
        return f"has the label `{text}` in `{source.label}`; expected {expected}"


def parsed(text: str, source: Source) -> float:
    """Return the label that a text stands for: a class, 0 or 1, or a number; nan for none."""
    text = text.strip()
    if source.labels:
        if text not in source.labels and text.endswith(".0"):
            text = text.removesuffix(".0")  # as pandas writes whole numbers beside missing ones
        return float(source.labels.index(text)) if text in source.labels else math.nan
    if source.kind == "binary" and text.lower() in YES + NO:
        return float(text.lower() in YES)
    try:
        return math.nan if "_" in text else float(text)  # Python reads 1_000, nobody else does
    except ValueError:
        return math.nan


def is_valid(label: float, source: Source) -> bool:
    """Return whether a number is a label of a task."""
    if source.kind == "regression":
        return source.low <= label <= source.high
    return label in range(source.task().classes if source.kind == "classification" else 2)


def _examples(rows: Sequence[_Row], source: Source) -> Examples:
    """Return the examples of valid rows."""
    is_labelled = bool(rows) and rows[0].label is not None
    return Examples(
        ids=tuple(row.id for row in rows),
        first=tuple(row.sentences[0] for row in rows),
        second=tuple(row.sentences[1] for row in rows) if len(source.columns) == 2 else (),
        labels=np.array([parsed(row.label or "", source) for row in rows]) if is_labelled else None)


def _divided(rows: Sequence[_Row], source: Source) -> dict[str, list[_Row]]:
    """Divide the training examples by the shares of a source, each class (or tenth of the scores) alike.

    Rows of one group, by default those with the same sentences, stay together. What goes where depends on the seed and
    on the groups alone, not on the order of the rows.
    """
    groups: dict[tuple[str, ...], list[_Row]] = defaultdict(list)
    for row in rows:
        groups[(row.group,) if source.group else row.sentences].append(row)
    labels = {key: _common([parsed(row.label or "", source) for row in members]) for key, members in groups.items()}
    ranked = sorted(groups, key=lambda key: (labels[key], _draw(key, source.split_seed)))
    strata: dict[float, list[tuple[str, ...]]] = defaultdict(list)
    for rank, key in enumerate(ranked):
        strata[10 * rank // len(ranked) if source.kind == "regression" else labels[key]].append(key)
    split_of: dict[tuple[str, ...], str] = {}
    missing = dict.fromkeys(source.shares(), 0.0)  # examples that a split lacks, carried from stratum to stratum
    for keys in strata.values():
        keys.sort(key=lambda key: _draw(key, source.split_seed))
        count = sum(len(groups[key]) for key in keys)
        for split, share in source.shares().items():
            missing[split] += share * count
            while missing[split] >= 0.5 and keys:
                key = keys.pop()
                split_of[key] = split
                missing[split] -= len(groups[key])
    divided: dict[str, list[_Row]] = {split: [] for split in ("train", *source.shares())}
    for row in rows:
        divided[split_of.get((row.group,) if source.group else row.sentences, "train")].append(row)
    return divided


def _common(labels: Sequence[float]) -> float:
    """Return the most frequent label of a group, the lowest of several."""
    return min(Counter(labels).items(), key=lambda item: (-item[1], item[0]))[0]


def _draw(key: tuple[str, ...], seed: int) -> str:
    """Return a pseudo-random text that depends on a group and a seed alone."""
    return hashlib.sha256("\0".join([str(seed), *key]).encode()).hexdigest()


def _grouped(problems: Sequence[Problem]) -> Iterator[Problem]:
    """Yield problems by place; of each kind in a file only the first few, the last of which counts the others."""
    kinds: dict[tuple[str, str], list[Problem]] = defaultdict(list)
    for problem in dict.fromkeys(problems):  # a file may serve two tasks
        place = problem.place or Place("")
        words = problem.message.split("`")
        kinds[place.file, "`".join(words[::2]).rstrip("0123456789")].append(problem)
    shown = []
    for alike in kinds.values():
        alike.sort(key=lambda problem: problem.place or Place(""))
        *first, last = alike[:SHOWN]
        if (more := len(alike) - SHOWN) > 0:
            last = replace(last, notes=(*last.notes, f"and {more:,} more like this"))
        shown += [*first, last]
    yield from sorted(shown, key=lambda problem: problem.place or Place(""))
