"""Submissions: prediction files of the course CS224N, as written by its starter code (multitask_classifier.py).

    predictions/sst-dev-output.csv      id 	 Predicted_Sentiment 
         then lines of the form `ID , 3 
`
    predictions/para-test-output.csv    id 	 Predicted_Is_Paraphrase 
     `ID , 1.0 
`
    predictions/sts-dev-output.csv      id 	 Predicted_Similiary 
         `ID , 2.7182817 
`; the spelling is theirs
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import DataError, Place, Problem
from ..tasks.data import Data, Task
from ..tasks.metrics import metric, predict_labels
from ..tasks.predictions import Predictions

ARCHIVE = "cs224n_default_final_project_submission.zip"
"""Name of the archive in the script of the course."""

SCORES = "scores.safetensors"
"""Predictions file next to it, with the scores that ensembles need and the files of the course lack."""

FILES = {"sentiment": "sst", "paraphrase": "para", "similarity": "sts"}
"""File name prefix of a task; other tasks use their own name."""

HEADERS = {"classification": "Predicted_Sentiment", "binary": "Predicted_Is_Paraphrase",
           "regression": "Predicted_Similiary"}

SPLITS = ("dev", "test")

_ID = re.compile(r"[^\s,]+")


@dataclass(frozen=True)
class Sheet:
    """File of one task and split: n ids and their predicted values [n]."""

    name: str
    """File name."""
    task: Task
    ids: tuple[str, ...]
    values: np.ndarray
    score: float | None
    """Metric on the split, or None if the labels are hidden."""

    def text(self) -> str:
        """Return the content of the file."""
        lines = [f"id \t {HEADERS[self.task.kind]} \n"]
        lines += [f"{id} , {_shown(self.task, value)} \n" for id, value in zip(self.ids, self.values, strict=True)]
        return "".join(lines)

    def faults(self) -> Iterator[str]:
        """Yield the problems of the file."""
        if wrong := [id for id in self.ids if not _ID.fullmatch(id)]:
            yield f"the id `{wrong[0]}` has blanks or commas in it"
        if len(set(self.ids)) < len(self.ids) or len(self.ids) != len(self.values):
            yield f"there are {len(set(self.ids)):,} ids for {len(self.values):,} rows"
        outside = self.values[(self.values < 0) | (self.values >= self.task.classes)]
        if self.task.kind != "regression" and len(outside):
            yield f"it says {outside[0]}, which is no class"
        if not np.isfinite(self.values).all():
            yield "a score is not finite"


def _shown(task: Task, value: np.generic) -> str:
    """Format a value as the starter code does: classes as integers, everything else as float32."""
    return str(int(value)) if task.kind == "classification" else str(np.float32(value))


def sheets(predictions: Predictions, data: Data) -> list[Sheet]:
    """Return the checked files of a submission. Raise DataError with all problems, RegistryError for unequal ids."""
    files = []
    if several := [task for task, meaning in data.tasks.items() if meaning.kind == "multilabel"]:
        raise DataError(f"the files of a submission have one label an example, and `{several[0]}` has several")
    for task, meaning in data.tasks.items():
        for split in SPLITS:
            scores = predictions.find(data, split, task)
            if scores is not None:
                examples = data.splits[task][split]
                score = None if examples.labels is None else metric(meaning, scores, examples.labels)
                labels = predict_labels(meaning, scores)
                files.append(Sheet(_name(task, split), meaning, examples.ids, labels, score))
    problems = [Problem(f"{sheet.name} cannot be handed in: {fault}") for sheet in files for fault in sheet.faults()]
    if problems:
        raise DataError(*problems)
    return files


def missing(files: Sequence[Sheet], data: Data) -> list[str]:
    """Return one line per missing file of the course, with the reason."""
    names, notes = {sheet.name for sheet in files}, []
    for task, by_split in data.splits.items():
        for split in SPLITS:
            why = "the system does not predict it" if split in by_split else f"the suite has no {split} data of {task}"
            if (name := _name(task, split)) not in names:
                notes.append(f"no {name}: {why}")
    return notes


def _name(task: str, split: str) -> str:
    """Return the file name of the course for a task and split."""
    return f"{FILES.get(task, task)}-{split}-output.csv"


def read(text: str, file: str) -> dict[str, float]:
    """Parse a file of a submission into values by id. Raise DataError with file and line."""
    header, *lines = text.split("\n")
    if header not in {f"id \t {column} " for column in HEADERS.values()}:
        raise DataError(Problem("this is no file of a submission: its header is another", Place(file, 1, text=header)))
    values: dict[str, float] = {}
    for number, line in enumerate(lines[:-1], 2):
        id, _, value = line.partition(" , ")
        try:
            values[id] = float(value)
        except ValueError:
            raise DataError(Problem("not of the form `ID , VALUE`", Place(file, number, text=line))) from None
    return values
