"""Tasks and their examples."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import Field

from ..part import Part

if TYPE_CHECKING:
    import numpy as np
    import torch

SPLITS = ("train", "dev", "test")

Kind = Literal["classification", "binary", "multilabel", "regression"]
"""classification: one of k classes, k logits; binary: no or yes, 1 logit; multilabel: any of k classes, k logits;
regression: a number, 1 score. A logit of a binary or multi-label task above 0 is a yes."""

PORTION = 10_000
"""Number of examples that are hashed at a time."""


class Task(Part):
    """Type of a task: kind of labels, sentences per example, metric."""

    title: str
    """Column title in tables, such as SST."""
    kind: Kind
    """Kind of the labels."""
    classes: int = 2
    """Number of classes of a classification, whose labels are 0 to classes - 1, or of a multi-label task."""
    low: float = 0.0
    """Lowest label of a regression."""
    high: float = 1.0
    """Highest label of a regression."""
    sentences: Literal[1, 2] = 1
    """Sentences of one example: 1, or 2 for a pair."""
    labels: tuple[str, ...] = Field(default=(), json_schema_extra={"later": True})
    """Names of the classes, in the order of their numbers; none where the data have numbers."""
    metrics: tuple[str, ...] = Field(default=(), json_schema_extra={"later": True})
    """Names of the metrics, the leading one first; none for the usual one of the kind (`tasks/metrics.py`)."""
    counts: float = Field(default=1.0, json_schema_extra={"later": True})
    """Weight in the overall; 0 for an auxiliary task."""

    @property
    def outputs(self) -> int:
        """Number of logits of one example."""
        return self.classes if self.kind in ("classification", "multilabel") else 1

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes: the `labels`, else no and yes for a binary task, else their numbers."""
        if self.labels or self.kind == "regression":
            return self.labels
        return ("no", "yes") if self.kind == "binary" else tuple(map(str, range(self.classes)))

    def shown(self, label: np.ndarray | float) -> float | int | str | list[str]:
        """Return a label, or a prediction of `predict_labels`, for people: a name, the names of several, a number."""
        if self.kind == "multilabel":
            return [name for name, answer in zip(self.names, label, strict=True) if answer]  # type: ignore[arg-type]
        if self.labels:
            return self.labels[int(label)]
        return float(label) if self.kind == "regression" else int(label)

    def share(self, labels: torch.Tensor) -> torch.Tensor:
        """Scale labels to [0, 1] by the task's range; labels that are 0 or 1 are returned as they are."""
        return labels if self.kind in ("binary", "multilabel") else (labels - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Examples:
    """Examples of one split of one task, in file order: ids, sentences (`second` for pairs), labels if known."""

    ids: tuple[str, ...]
    first: tuple[str, ...]
    second: tuple[str, ...] = ()
    labels: np.ndarray | None = None
    """float64 [n]: class indices, 0/1, or real values; float64 [n, k] of 0/1 for a multi-label task."""
    weights: np.ndarray | None = None
    """float64 [n]: factors of the examples' losses in training; None for 1."""

    def __len__(self) -> int:
        return len(self.ids)

    def sentences(self) -> list[tuple[str, ...]]:
        """Return the sentences or pairs of all examples."""
        return list(zip(self.first, self.second, strict=True) if self.second else zip(self.first, strict=True))


class Overlap(NamedTuple):
    """Examples of a split whose sentences are in an earlier split, too."""

    task: str
    earlier: str
    split: str
    shared: int
    total: int
    """Number of all examples of the split."""
    example: str
    """Id of the first of them."""


@dataclass(frozen=True)
class Data:
    """Parsed content of a suite: examples `splits[task][split]`, and the number of `dropped` bad rows by file."""

    tasks: Mapping[str, Task]
    splits: Mapping[str, Mapping[str, Examples]]
    dropped: Mapping[str, int] = field(default_factory=dict)

    def overlaps(self) -> list[Overlap]:
        """Return the splits of a task that share sentences with an earlier one."""
        found = []
        for task, splits in self.splits.items():
            for one, other in combinations(splits, 2):
                earlier = set(splits[one].sentences())
                rows = [number for number, texts in enumerate(splits[other].sentences()) if texts in earlier]
                if rows:
                    found.append(Overlap(task, one, other, len(rows), len(splits[other]), splits[other].ids[rows[0]]))
        return found

    def sha256(self) -> str:
        """Return the sha256 over tasks, ids, sentences and labels."""
        digest = hashlib.sha256()
        for name in sorted(self.tasks):
            digest.update(json.dumps([name, self.tasks[name].canonical()], sort_keys=True).encode())
            for split, part in sorted(self.splits[name].items()):
                digest.update(f"[{json.dumps(split)}".encode())
                labels = None if part.labels is None else part.labels.tolist()
                weights = [] if part.weights is None else [part.weights.tolist()]  # hashes without weights stay valid
                for items in (part.ids, part.first, part.second, labels, *weights):
                    digest.update(b", ")
                    for text in _json_parts(items):
                        digest.update(text.encode())
                digest.update(b"]")
        return digest.hexdigest()


def _json_parts(items: Sequence[object] | None) -> Iterator[str]:
    """Yield the text of `json.dumps` in parts, for a million examples in little memory."""
    if items is None:
        yield "null"
        return
    yield "["
    for start in range(0, len(items), PORTION):
        yield (", " if start else "") + json.dumps(list(items[start : start + PORTION]))[1:-1]
    yield "]"
