"""Optimizers: from gradients to new weights. One file, one optimizer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pydantic import Field

from ..parts import Part

if TYPE_CHECKING:
    import torch


class Optimizer(Part):
    """Makes a torch optimizer; the schedule multiplies its rate."""

    lr: float = Field(gt=0)
    """Learning rate; a profile sets it."""
    lr_scale: float = Field(default=1.0, gt=0)
    """Factor of `lr`: sweep this, so that a sweep makes sense under every profile."""

    @abstractmethod
    def build(self, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimizer with rate lr * lr_scale."""
