"""What tests of parts share."""

from __future__ import annotations

from runner.part import Member
from runner.tasks.data import Task
from runner.tasks.predictions import Predictions

TASKS = {
    "sentiment": Task(title="SST", kind="classification", classes=5),
    "paraphrase": Task(title="Quora", kind="binary", sentences=2),
    "similarity": Task(title="STS", kind="regression", high=5.0, sentences=2),
}


def handles(n: int) -> tuple[Member, ...]:
    return tuple(Member() for _ in range(n))


def ids(n: int) -> list[str]:
    return [f"{i:012x}" for i in range(n)]


def bits(predictions: Predictions) -> bytes:
    return predictions.to_bytes()
