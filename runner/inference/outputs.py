"""Answers: what a system and its members say of a question, as text, CSV and JSON lines."""

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
"""Length of the bar that shows where a score stands on its scale."""


@dataclass(frozen=True)
class Answer:
    """What one node says of one question of one task."""

    task: str
    meaning: Task
    scores: tuple[float, ...]
    """Logits of a classification, the logit of a binary task, or the score of a regression."""
    name: str = ""
    role: str = ""
    """What the node is for among its siblings, such as a route's task."""
    members: tuple[Answer, ...] = ()
    """Answers of the members that the node makes its own of, where they are asked for."""

    @property
    def label(self) -> float | int:
        """The class, 0 or 1, or the score."""
        value = predict_labels(self.meaning, np.array([self.scores], np.float32))[0]
        return round(float(value), 6) if self.meaning.kind == "regression" else int(value)

    @property
    def probabilities(self) -> tuple[float, ...]:
        """The softmax of the logits; for a binary task those of no and of yes; none for a regression."""
        if self.meaning.kind == "regression":
            return ()
        (shares,) = probabilities(self.meaning, np.array([self.scores]))
        return tuple(round(float(share), 6) for share in shares)


@dataclass(frozen=True)
class Answers:
    """All that is said of one question."""

    question: Input
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class OutputBuilder:
    """Puts questions to a system as examples and reads its Predictions as answers; `predicted` are its tasks."""

    nodes: Mapping[str, PlannedNode]
    root: str
    tasks: Mapping[str, Task]
    predicted: Sequence[str]
    members: bool = False
    chosen: Mapping[str, Sequence[int] | None] = field(default_factory=dict)

    def fitting(self, question: Input) -> list[str]:
        """Return the tasks that a question is one of. Raise UsageError where there are none."""
        count = len(question.sentences)
        wanted = question.tasks or self.predicted
        fit = [task for task in wanted if task in self.predicted and self.tasks[task].sentences == count]
        if not fit:
            takes = ", ".join(f"{task} takes {self.tasks[task].sentences}" for task in self.predicted)
            raise UsageError(f"question {question.id} has {count} sentence{'s' * (count > 1)}"
                             f"{' for ' * bool(question.tasks)}{', '.join(question.tasks)}, but {takes}")
        return fit

    def examples(self, portion: Sequence[Input]) -> dict[str, Examples]:
        """Return the examples of each task; their ids are the positions of the questions."""
        rows: dict[str, list[int]] = {}
        for position, question in enumerate(portion):
            for task in self.fitting(question):
                rows.setdefault(task, []).append(position)
        return {task: _examples(portion, positions) for task, positions in rows.items()}

    def answers(self, portion: Sequence[Input], predictions: Mapping[str, Predictions]) -> Iterator[Answers]:
        """Yield what is said of each question, in their order."""
        places = {task: {id: row for row, id in enumerate(output.ids)}
                  for task, output in predictions[self.root].outputs[SPLIT].items()}
        for position, question in enumerate(portion):
            yield Answers(question, tuple(self._answer(self.root, task, places[task][str(position)], predictions)
                                          for task in self.fitting(question)))

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
        """Tell whether a member has a part in what a node says of a task."""
        chosen, role = self.chosen.get(node.id), node.roles[position]
        return role in ("", task) and (chosen is None or position in chosen)


def _examples(portion: Sequence[Input], positions: Sequence[int]) -> Examples:
    """Return the questions at some positions as examples of one task."""
    sentences = [portion[position].sentences for position in positions]
    return Examples(tuple(map(str, positions)), tuple(one[0] for one in sentences),
                    tuple(one[1] for one in sentences if len(one) > 1))


@dataclass(frozen=True)
class Style:
    """A way of writing answers."""

    form: str
    """`text`, `csv` or `json`."""
    width: int
    """The most scores of an answer."""
    split: str = SPLIT
    """Of which split a predictions file is to say that the questions are."""
    members: bool = False
    """Whether rows of members are there, so that it must be told whose a row is."""

    @property
    def header(self) -> str:
        """What stands above all answers, if anything does."""
        names = ["id", "split", "task", *(["node"] if self.members else []), "label"]
        return ",".join([*names, *(f"score_{k}" for k in range(self.width))]) if self.form == "csv" else ""

    def __call__(self, said: Answers) -> str:
        """Return the lines of one question, without the last line's end."""
        if self.form == "csv":
            return self._csv(said)
        return as_json(said) if self.form == "json" else as_text(said)

    def _csv(self, answers: Answers) -> str:
        """Return a row for each answer; with members one for each of theirs, told apart by the path of their names."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for top in answers.answers:
            for name, answer in _named(top):
                node = [name] if self.members else []
                scores = [format(score, ".9g") for score in answer.scores]
                writer.writerow([answers.question.id, self.split, answer.task, *node, answer.label, *scores,
                                 *[""] * (self.width - len(scores))])
        return text.getvalue().removesuffix("\n")


def _named(answer: Answer, path: str = "") -> Iterator[tuple[str, Answer]]:
    """Yield the path of names to an answer and to each of those below it."""
    yield path, answer
    for member in answer.members:
        yield from _named(member, f"{path}/{member.name}".removeprefix("/"))


# JSON lines ----------------------------------------------------------------------------------------------------------


def as_json(said: Answers) -> str:
    """Return one object: the question and, by task, label, probabilities, scores and, if asked for, members."""
    sentences = said.question.sentences
    asked = dict(zip(("sentence1", "sentence2") if len(sentences) == 2 else ("sentence",), sentences, strict=True))
    return json.dumps({"v": 1, "id": said.question.id, **asked, "answers": {a.task: _json(a) for a in said.answers}},
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


def as_text(said: Answers) -> str:
    """Return the question and under it a line for each answer, members indented below."""
    lines = ["  |  ".join(said.question.sentences)]
    wide = max((len(text) for answer in said.answers for text, _ in _rows(answer)), default=0)
    lines += [f"  {text:{wide}}  {_verdict(answer)}" for top in said.answers for text, answer in _rows(top)]
    return "\n".join(clean(line).rstrip() for line in lines)


def _rows(answer: Answer, depth: int = 0) -> Iterator[tuple[str, Answer]]:
    """Yield what stands in front of an answer and of those below it."""
    yield "  " * depth + (answer.name if depth else answer.meaning.title), answer
    for member in answer.members:
        yield from _rows(member, depth + 1)


def _verdict(answer: Answer) -> str:
    """Return an answer for a person: the label, and a bar for each class's probability or the score's place."""
    meaning, shares = answer.meaning, answer.probabilities
    if meaning.kind == "regression":
        share = (answer.label - meaning.low) / (meaning.high - meaning.low)
        filled = round(min(max(share, 0.0), 1.0) * CELLS)
        return f"{answer.label:4.2f}        {meaning.low:g} {'█' * filled}{'░' * (CELLS - filled)} {meaning.high:g}"
    names = ("no", "yes") if meaning.kind == "binary" else tuple(map(str, range(len(shares))))
    bars = "  ".join(f"{name} {BAR[round(share * (len(BAR) - 1))]}" for name, share in zip(names, shares, strict=True))
    return f"{names[int(answer.label)]:4}  {shares[int(answer.label)]:4.0%}  {bars}"
