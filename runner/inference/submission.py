"""Submissions: the prediction files of the course CS224N, as its starter code (multitask_classifier.py) writes them.

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
"""What the course's own script calls the archive."""

SCORES = "scores.safetensors"
"""A predictions file beside it: the course's files say a class, ensembles want its scores."""

FILES = {"sentiment": "sst", "paraphrase": "para", "similarity": "sts"}
"""What a task's files begin with; those of another task with its own name."""

HEADERS = {"classification": "Predicted_Sentiment", "binary": "Predicted_Is_Paraphrase",
           "regression": "Predicted_Similiary"}

SPLITS = ("dev", "test")

_ID = re.compile(r"[^\s,]+")


@dataclass(frozen=True)
class Sheet:
    """What is handed in for one task and split: n ids and what is said of them [n]."""

    name: str
    """Name of the file."""
    task: Task
    ids: tuple[str, ...]
    said: np.ndarray
    score: float | None
    """Its metric; None where the labels are hidden."""

    def text(self) -> str:
        """Return the file."""
        lines = [f"id \t {HEADERS[self.task.kind]} \n"]
        lines += [f"{id} , {_shown(self.task, value)} \n" for id, value in zip(self.ids, self.said, strict=True)]
        return "".join(lines)

    def faults(self) -> Iterator[str]:
        """Yield what is wrong with it."""
        if wrong := [id for id in self.ids if not _ID.fullmatch(id)]:
            yield f"the id `{wrong[0]}` has blanks or commas in it"
        if len(set(self.ids)) < len(self.ids) or len(self.ids) != len(self.said):
            yield f"there are {len(set(self.ids)):,} ids for {len(self.said):,} rows"
        outside = self.said[(self.said < 0) | (self.said >= self.task.classes)]
        if self.task.kind != "regression" and len(outside):
            yield f"it says {outside[0]}, which is no class"
        if not np.isfinite(self.said).all():
            yield "a score is not finite"


def _shown(task: Task, value: np.generic) -> str:
    """Return a value as the starter code prints it: classes as whole numbers, the rest as float32."""
    return str(int(value)) if task.kind == "classification" else str(np.float32(value))


def sheets(predictions: Predictions, data: Data) -> list[Sheet]:
    """Return what can be handed in, checked. Raise DataError with all that is wrong, RegistryError for other ids."""
    sheets_ = list[Sheet]()
    for task, meaning in data.tasks.items():
        for split in SPLITS:
            scores = predictions.find(data, split, task)
            if scores is not None:
                examples = data.splits[task][split]
                reached = None if examples.labels is None else metric(meaning, scores, examples.labels)
                labels = predict_labels(meaning, scores)
                sheets_.append(Sheet(_name(task, split), meaning, examples.ids, labels, reached))
    problems = [Problem(f"{sheet.name} cannot be handed in: {fault}") for sheet in sheets_ for fault in sheet.faults()]
    if problems:
        raise DataError(*problems)
    return sheets_


def missing(made: Sequence[Sheet], data: Data) -> list[str]:
    """Return a line for each file of the course that is not there, and why."""
    names, absent = {sheet.name for sheet in made}, []
    for task, by_split in data.splits.items():
        for split in SPLITS:
            why = "the system does not predict it" if split in by_split else f"the suite has no {split} data of {task}"
            if (name := _name(task, split)) not in names:
                absent.append(f"no {name}: {why}")
    return absent


def _name(task: str, split: str) -> str:
    """Return what the course calls the file of a task and split."""
    return f"{FILES.get(task, task)}-{split}-output.csv"


def read(text: str, file: str) -> dict[str, float]:
    """Return what a file of a submission says of each id. Raise DataError with file and line."""
    header, *lines = text.split("\n")
    if header not in {f"id \t {column} " for column in HEADERS.values()}:
        raise DataError(Problem("this is no file of a submission: its header is another", Place(file, 1, text=header)))
    scores: dict[str, float] = {}
    for number, line in enumerate(lines[:-1], 2):
        id, _, value = line.partition(" , ")
        try:
            scores[id] = float(value)
        except ValueError:
            raise DataError(Problem("not of the form `ID , VALUE`", Place(file, number, text=line))) from None
    return scores
