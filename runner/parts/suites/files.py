"""Suites read from files of rows, such as those of CS 224N: delimited tables, JSON, Parquet, Arrow."""

from __future__ import annotations

import glob
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from ...errors import DataError, Place, Problem, StorageError, did_you_mean
from ...files import reported, sha256
from ...tasks.data import SPLITS, Data, Examples, Task
from . import Suite
from ._hub import HubName
from ._reader import DataFile, Example, SplitReader, examples_of, found_labels
from ._shares import splits_of
from ._source import Source

MOST_LABELS = 1000
"""Number of different labels from which on those in train are no classes."""

SHOWN = 5
"""Bad rows of one kind that are shown; the others are counted."""


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

    @model_validator(mode="after")
    def _some_task_counts(self) -> Self:
        if self.tasks and not any(source.counts for source in self.tasks.values()):
            raise ValueError("no task counts in the overall; one must: leave out its `counts = false`")
        return self

    def resolved(self, project: Path) -> Files:
        """Return the suite with the labels that tasks find in train; as it is where they cannot be read or used.

        `load` then reports why, with file and line.
        """
        tasks = {name: source.model_copy(update={"labels": labels})
                 for name, source in self.tasks.items() if source.find_labels and not source.labels
                 and len(labels := self._labels_in_train(source, project)) in range(2, MOST_LABELS)}
        return self.model_copy(update={"tasks": {**self.tasks, **tasks}}) if tasks else self

    def _labels_in_train(self, source: Source, project: Path) -> tuple[str, ...]:
        """Return the labels in the training files of a task, sorted; none where a file cannot be read."""
        try:
            return found_labels(source, self._files(source, "train", project))
        except (DataError, StorageError):
            return ()

    def notes(self) -> Iterator[str]:
        """Yield the labels that were found."""
        for name, source in self.tasks.items():
            if source.find_labels and source.labels:
                yield f"labels of `{name}`, found in train: {', '.join(source.labels)}"

    def meanings(self) -> Mapping[str, Task]:
        """Return the tasks by name, without reading any data."""
        return {name: source.task() for name, source in self.tasks.items()}

    def inputs(self, project: Path) -> dict[str, str] | None:
        """Return the sha256 of each data file; None if one cannot be read, which `load` reports with its place."""
        try:
            files = {file.name: file.path for source in self.tasks.values() for split in SPLITS
                     for file in self._files(source, split, project)}
            return {name: sha256(files[name]) for name in sorted(files)}
        except (StorageError, DataError):
            return None

    def data_files(self, project: Path) -> Mapping[str, Mapping[str, Sequence[str]]]:
        """Return the names of the files by task and split. Raise DataError for one that is named twice."""
        return {name: {split: [file.name for file in self._files(source, split, project)] for split in SPLITS}
                for name, source in self.tasks.items()}

    def _folder(self, project: Path) -> Path:
        """Return the folder of the files."""
        folder = os.path.expanduser(self.folder or os.environ.get("MTRUN_DATA") or "data")
        above = Path.cwd() if not self.folder and os.environ.get("MTRUN_DATA") else project
        return Path(os.path.normpath(above / folder))

    def _files(self, source: Source, split: str, project: Path) -> list[DataFile]:
        """Return the files of a split. Raise DataError if one is named twice."""
        folder = self._folder(project)
        files = [DataFile(name, path, pattern.share) for pattern in source.patterns(split)
                 for name, path in _found(folder, pattern.name).items()]
        names = [file.name for file in files]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise DataError(Problem(f"the file {repeated[0]} is named twice for {split}", Place(str(folder))))
        return files

    def load(self, project: Path) -> Data:
        """Load the examples; relative folders are relative to `project`. Raise DataError with file and line."""
        self._check_files(self._folder(project))
        splits: dict[str, dict[str, Examples]] = {}
        problems: list[Problem] = []
        dropped: dict[str, int] = {}
        for name, source in self.tasks.items():
            files = {split: self._files(source, split, project) for split in SPLITS}
            problems += _same_files(name, files)
            rows: dict[str, list[Example]] = {}
            for split in filter(files.get, SPLITS):
                reader = SplitReader(source, split, self.bad_rows == "drop")
                rows[split] = reader.read(files[split])
                problems += reader.broken
                if self.bad_rows == "drop":
                    dropped |= reader.count_bad(files[split])
                else:
                    problems += reader.bad
            if source.split_off() and rows["train"]:
                rows |= _divided(rows["train"], source)
                problems += [Problem(f"`{name}` has too few different training examples for {source.shown_shares()}: "
                                     f"{split} would have none", Place(str(files["train"][0].path)))
                             for split in ("train", *source.split_off()) if not rows[split]]
            splits[name] = {split: examples_of(rows[split], source, split) for split in SPLITS if split in rows}
        if problems:
            raise DataError(*_grouped(problems))
        return Data(self.meanings(), splits, dropped)

    def _check_files(self, folder: Path) -> None:
        """Raise DataError if a named file is missing, or if no file matches a pattern."""
        names = sorted({pattern.name for source in self.tasks.values() for split in SPLITS
                        for pattern in source.patterns(split)})
        if missing := [name for name in names if not _found(folder, name)]:
            others = [path.name for path in folder.iterdir()] if folder.is_dir() else []
            them = "it" if len(missing) == 1 else "them"
            key = "`folder` in the suite" if self.folder else "MTRUN_DATA"
            raise DataError(Problem(
                f"no data file {', '.join(missing)} in {folder}",
                notes=tuple(filter(None, [did_you_mean(missing[0], others)])),
                hint=f"set {key} to the folder that holds {them}, or pass --set suite.folder=FOLDER"))


def _found(folder: Path, pattern: str) -> dict[str, Path]:
    """Return name and place of each file that a name or a pattern stands for, sorted. Raise DataError, StorageError."""
    hub = HubName.parsed(pattern)
    if not hub:
        return {name: folder / name for name in _matches(folder, pattern)}
    names = _matches(hub.folder(), hub.path)
    if not names:
        raise hub.missing()
    return {f"{hub.repository_name}/{name}": hub.folder() / name for name in names}


def _matches(folder: Path, pattern: str) -> list[str]:
    """Return the names of the files that a name or a pattern stands for, sorted. Raise StorageError."""
    path = folder / pattern
    with reported("read", path):
        if path.is_file():
            return [pattern]
        if path.is_dir():  # as `datasets` saves a split
            pattern = f"{glob.escape(pattern)}/*.arrow"
        return sorted(name for name in glob.glob(pattern, root_dir=folder, recursive=True) if (folder / name).is_file())


def _same_files(task: str, files: Mapping[str, Sequence[DataFile]]) -> list[Problem]:
    """Return a problem for each file of a split whose content is a file of another split."""
    seen: dict[str, str] = {}
    problems = []
    for split, several in files.items():
        for file in several:
            content = sha256(file.path)
            if content in seen:
                problems.append(Problem(
                    f"{split} of `{task}` is the same file as {seen[content]}: its scores would say nothing about new "
                    "sentences", Place(str(file.path)),
                    hint="split a share of the training examples off: dev = 0.1" if split == "dev" else
                    "leave `test` out, or split a share of the training examples off: test = 0.1"))
            seen.setdefault(content, f"{split}, {file.name}")
    return problems


def _divided(rows: Sequence[Example], source: Source) -> dict[str, list[Example]]:
    """Divide the training examples into train and the splits that are shares or folds of it."""
    keys = [(row.group,) if source.group else row.sentences for row in rows]
    split_of = splits_of(keys, [row.label for row in rows if row.label is not None], source)
    divided: dict[str, list[Example]] = {split: [] for split in ("train", *source.split_off())}
    for row, split in zip(rows, split_of, strict=True):
        divided[split].append(row)
    return divided


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
