"""Write answers (predictions of a system and its members for an input) as text, CSV or JSON lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import UsageError, clean
from ..plan.plan import PlannedNode
from ..specs.spec import Tree
from ..tasks.data import Examples, Task
from ..tasks.metrics import predict_labels, probabilities
from ..tasks.predictions import Predictions
from .inputs import SPLIT, Input

BAR = "▁▂▃▄▅▆▇█"

CELLS = 16
"""Length of the bar of a regression score, in characters."""


@dataclass(frozen=True)
class Answer:
    """Prediction of one node for one input and task."""

    task: str
    meaning: Task
    scores: tuple[float, ...]
    """Logits of a classification, the logit of a binary task, or the value of a regression."""
    name: str = ""
    role: str = ""
    """Role of the node in its parent, such as the task of a route."""
    members: tuple[Answer, ...] = ()
    """Answers of the members that the node combines, if requested."""

    @property
    def label(self) -> float | int | str | list[str]:
        """Predicted class, by name where the suite names its labels; names of several; the value of a regression."""
        (label,) = predict_labels(self.meaning, np.array([self.scores], np.float32))
        shown = self.meaning.shown(label)
        return round(shown, 6) if isinstance(shown, float) else shown

    @property
    def probabilities(self) -> tuple[float, ...]:
        """Class probabilities; those of no and yes for a binary task; of each label's yes; empty for a regression."""
        if self.meaning.kind == "regression":
            return ()
        (shares,) = probabilities(self.meaning, np.array([self.scores]))
        return tuple(round(float(share), 6) for share in shares)


@dataclass(frozen=True)
class Answers:
    """All answers for one input."""

    input: Input
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class OutputBuilder:
    """Converts inputs to examples and Predictions to answers; `predicted` are the tasks to answer."""

    nodes: Mapping[str, PlannedNode]
    root: str
    tasks: Mapping[str, Task]
    predicted: Sequence[str]
    members: bool = False
    chosen: Mapping[str, Sequence[int] | None] = field(default_factory=dict)

    def fitting(self, item: Input) -> list[str]:
        """Return the tasks that an input fits by its number of sentences. Raise UsageError if there are none."""
        count = len(item.sentences)
        requested = item.tasks or self.predicted
        fit = [task for task in requested if task in self.predicted and self.tasks[task].sentences == count]
        if not fit:
            takes = ", ".join(f"{task} takes {self.tasks[task].sentences}" for task in self.predicted)
            raise UsageError(f"question {item.id} has {count} sentence{'s' * (count > 1)}"
                             f"{' for ' * bool(item.tasks)}{', '.join(item.tasks)}, but {takes}")
        return fit

    def examples(self, portion: Sequence[Input]) -> dict[str, Examples]:
        """Return the examples of each task; their ids are the positions of the inputs."""
        rows: dict[str, list[int]] = {}
        for position, item in enumerate(portion):
            for task in self.fitting(item):
                rows.setdefault(task, []).append(position)
        return {task: _examples(portion, positions) for task, positions in rows.items()}

    def answers(self, portion: Sequence[Input], predictions: Mapping[str, Predictions]) -> Iterator[Answers]:
        """Yield the answers for each input, in order, from the Predictions of each node by id."""
        places = {task: {id: row for row, id in enumerate(output.ids)}
                  for task, output in predictions[self.root].outputs[SPLIT].items()}
        for position, item in enumerate(portion):
            yield Answers(item, tuple(
                self._answer(self.root, task, places[task][str(position)], predictions) for task in self.fitting(item)))

    def _answer(self, id: str, task: str, row: int, predictions: Mapping[str, Predictions], role: str = "") -> Answer:
        node, scores = self.nodes[id], predictions[id].outputs[SPLIT][task].scores[row]
        below: list[Answer] = []
        if self.members and isinstance(node.spec, Tree):
            roles = node.roles
            for position, member in enumerate(node.members):
                if self._counts(node, position, task) and task in predictions[member].outputs[SPLIT]:
                    below.append(self._answer(member, task, row, predictions, roles[position]))
        return Answer(task, self.tasks[task], tuple(map(float, scores)), node.title, role, tuple(below))

    def _counts(self, node: PlannedNode, position: int, task: str) -> bool:
        """Return whether a member contributes to the prediction of a node for a task."""
        chosen, role = self.chosen.get(node.id), node.roles[position]
        return role in ("", task) and (chosen is None or position in chosen)


def _examples(portion: Sequence[Input], positions: Sequence[int]) -> Examples:
    """Return the inputs at some positions as examples of one task."""
    sentences = [portion[position].sentences for position in positions]
    return Examples(tuple(map(str, positions)), tuple(texts[0] for texts in sentences),
                    tuple(texts[1] for texts in sentences if len(texts) > 1))


@dataclass(frozen=True)
class Style:
    """An output format of answers."""

    form: str
    """`text`, `csv` or `json`."""
    width: int
    """Maximal number of scores of an answer."""
    split: str = SPLIT
    """Split name of the inputs in CSV, which is a predictions file."""
    members: bool = False
    """Whether there are rows of members, which need a column for the node."""

    @property
    def header(self) -> str:
        """Header line of CSV; empty for other formats."""
        names = ["id", "split", "task", *(["node"] if self.members else []), "label"]
        return ",".join([*names, *(f"score_{k}" for k in range(self.width))]) if self.form == "csv" else ""

    def __call__(self, output: Answers) -> str:
        """Format the answers for one input, without a final line end."""
        if self.form == "csv":
            return self._csv(output)
        return as_json(output) if self.form == "json" else as_text(output)

    def _csv(self, output: Answers) -> str:
        """Return one row per answer and, with members, one per answer of a member, identified by its path of names."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for top in output.answers:
            for name, answer in _with_paths(top):
                node = [name] if self.members else []
                scores = [format(score, ".9g") for score in answer.scores]
                writer.writerow([output.input.id, self.split, answer.task, *node, _cell(answer.label), *scores,
                                 *[""] * (self.width - len(scores))])
        return text.getvalue().removesuffix("\n")


def _cell(label: float | int | str | list[str]) -> float | int | str:
    """Return a label as a cell; the names of several are joined by `|`, as a suite reads them."""
    return "|".join(label) if isinstance(label, list) else label


def _with_paths(answer: Answer, path: str = "") -> Iterator[tuple[str, Answer]]:
    """Yield an answer and all below it, each with its path of names."""
    yield path, answer
    for member in answer.members:
        yield from _with_paths(member, f"{path}/{member.name}".removeprefix("/"))


# JSON lines ----------------------------------------------------------------------------------------------------------


def as_json(output: Answers) -> str:
    """Return one JSON object: the input and, by task, label, probabilities, scores and, if requested, members."""
    sentences = output.input.sentences
    texts = dict(zip(("sentence1", "sentence2") if len(sentences) == 2 else ("sentence",), sentences, strict=True))
    return json.dumps({"v": 1, "id": output.input.id, **texts, "answers": {a.task: _json(a) for a in output.answers}},
                      ensure_ascii=False)


def _json(answer: Answer) -> dict[str, Any]:
    values: dict[str, Any] = {"label": answer.label}
    if answer.probabilities:
        values["probabilities"] = answer.probabilities
    values["scores"] = [round(score, 6) for score in answer.scores]
    if answer.members:
        values["members"] = [{"name": m.name, **_json(m)} for m in answer.members]
    return values


# Text ----------------------------------------------------------------------------------------------------------------


def as_text(output: Answers) -> str:
    """Return the input and, below it, one line per answer, with members indented."""
    lines = ["  |  ".join(output.input.sentences)]
    wide = max((len(text) for answer in output.answers for text, _ in _rows(answer)), default=0)
    lines += [f"  {text:{wide}}  {_verdict(answer)}" for top in output.answers for text, answer in _rows(top)]
    return "\n".join(clean(line).rstrip() for line in lines)


def _rows(answer: Answer, depth: int = 0) -> Iterator[tuple[str, Answer]]:
    """Yield the label of an answer and of those below it."""
    yield "  " * depth + (answer.name if depth else answer.meaning.title), answer
    for member in answer.members:
        yield from _rows(member, depth + 1)


def _verdict(answer: Answer) -> str:
    """Format an answer: the label, with a bar for the probability of each class or for the regression value."""
    meaning, shares = answer.meaning, answer.probabilities
    if meaning.kind == "regression":
        (value,) = answer.scores
        share = (value - meaning.low) / (meaning.high - meaning.low)
        filled = round(min(max(share, 0.0), 1.0) * CELLS)
        return f"{value:4.2f}        {meaning.low:g} {'█' * filled}{'░' * (CELLS - filled)} {meaning.high:g}"
    bars = "  ".join(f"{name} {BAR[round(share * (len(BAR) - 1))]}"
                     for name, share in zip(meaning.names, shares, strict=True))
    if isinstance(answer.label, list):
        return f"{', '.join(answer.label) or 'none'}  {bars}"
    said = max(range(len(shares)), key=lambda place: shares[place])
    return f"{meaning.names[said]:4}  {shares[said]:4.0%}  {bars}"
