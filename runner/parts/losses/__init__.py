"""Losses: what a head is trained to make small. One file, one loss."""

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
    """The kinds of task that it is defined for."""

    def start(self, task: Task) -> float:
        """Return the score that a new head should begin with, so that training need not find the labels' mean first."""
        return 0.0

    @abstractmethod
    def each(self, scores: torch.Tensor, labels: torch.Tensor, task: Task) -> torch.Tensor:
        """Return the loss of each example: scores [n, k], labels [n] float -> [n]."""
