"""Tasks and their examples."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Literal

from ..part import Part

if TYPE_CHECKING:
    import numpy as np
    import torch

SPLITS = ("train", "dev", "test")


class Task(Part):
    """Type of a task: kind of labels, sentences per example, metric."""

    title: str
    """Column title in tables, such as SST."""
    kind: Literal["classification", "binary", "regression"]
    """classification: k logits, accuracy; binary: 1 logit, accuracy at 0; regression: 1 score, Pearson."""
    classes: int = 2
    """Number of classes of a classification; labels are 0 to classes - 1."""
    low: float = 0.0
    """Lowest label of a regression."""
    high: float = 1.0
    """Highest label of a regression."""
    sentences: Literal[1, 2] = 1
    """Sentences of one example: 1, or 2 for a pair."""

    @property
    def outputs(self) -> int:
        """Number of logits of one example."""
        return self.classes if self.kind == "classification" else 1

    def share(self, labels: torch.Tensor) -> torch.Tensor:
        """Scale labels to [0, 1] by the task's range; binary labels are returned as they are."""
        return labels if self.kind == "binary" else (labels - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Examples:
    """Examples of one split of one task, in file order: ids, sentences (`second` for pairs), labels if known."""

    ids: tuple[str, ...]
    first: tuple[str, ...]
    second: tuple[str, ...] = ()
    labels: np.ndarray | None = None
    """float64 [n]: class indices, 0/1, or real values."""

    def __len__(self) -> int:
        return len(self.ids)

    def sentences(self) -> list[tuple[str, ...]]:
        """Return the sentences or pairs of all examples."""
        return list(zip(self.first, self.second, strict=True) if self.second else zip(self.first, strict=True))


@dataclass(frozen=True)
class Data:
    """Parsed content of a suite: examples `splits[task][split]`, and the number of `dropped` bad rows by file."""

    tasks: Mapping[str, Task]
    splits: Mapping[str, Mapping[str, Examples]]
    dropped: Mapping[str, int] = field(default_factory=dict)

    def repeated_splits(self) -> list[tuple[str, str, str]]:
        """Return task, split and other split where two splits have the same sentences, in any order."""
        return [(task, one, other) for task, splits in self.splits.items() for one, other in combinations(splits, 2)
                if len(splits[one]) == len(splits[other])
                and sorted(splits[one].sentences()) == sorted(splits[other].sentences())]

    def sha256(self) -> str:
        """Return the sha256 over tasks, ids, sentences and labels."""
        digest = hashlib.sha256()
        for name in sorted(self.tasks):
            digest.update(json.dumps([name, self.tasks[name].canonical()], sort_keys=True).encode())
            for split, part in sorted(self.splits[name].items()):
                labels = None if part.labels is None else part.labels.tolist()
                digest.update(json.dumps([split, part.ids, part.first, part.second, labels]).encode())
        return digest.hexdigest()
