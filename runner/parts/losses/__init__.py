"""Loss functions of heads. One file per loss."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from ...part import Part
from ...tasks.data import Task

if TYPE_CHECKING:
    import torch


class Loss(Part):
    """A loss over the scores of one task."""

    kinds: ClassVar[tuple[str, ...]] = ()
    """Supported kinds of task."""

    def start(self, task: Task) -> float:
        """Return the initial bias of a head, near the mean of the labels, so that training need not learn it."""
        return 0.0

    @abstractmethod
    def each(self, scores: torch.Tensor, labels: torch.Tensor, task: Task) -> torch.Tensor:
        """Return the per-example loss (no reduction): scores [n, k], labels [n] float -> [n]."""
