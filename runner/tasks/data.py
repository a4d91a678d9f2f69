"""Tasks and their examples."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from ..part import Part

if TYPE_CHECKING:
    import numpy as np
    import torch

SPLITS = ("train", "dev", "test")


class Task(Part):
    """What a task asks for and how it is scored."""

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
        """Return labels as shares of their range, from 0 to 1; those of a binary task are that already."""
        return labels if self.kind == "binary" else (labels - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Examples:
    """One split of one task, in file order: n ids, n sentences (twice for pairs), n labels where they are known."""

    ids: tuple[str, ...]
    first: tuple[str, ...]
    second: tuple[str, ...] = ()
    labels: np.ndarray | None = None
    """float64 [n]; class numbers, 0/1, or scores."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Data:
    """A suite's parsed content: `splits[task][split]`, and how many bad rows were dropped from which file."""

    tasks: Mapping[str, Task]
    splits: Mapping[str, Mapping[str, Examples]]
    dropped: Mapping[str, int] = field(default_factory=dict)

    def sha256(self) -> str:
        """Return the hash of all that a run can see: task meanings, ids, sentences and labels."""
        digest = hashlib.sha256()
        for name in sorted(self.tasks):
            digest.update(json.dumps([name, self.tasks[name].canonical()], sort_keys=True).encode())
            for split, part in sorted(self.splits[name].items()):
                labels = None if part.labels is None else part.labels.tolist()
                digest.update(json.dumps([split, part.ids, part.first, part.second, labels]).encode())
        return digest.hexdigest()
