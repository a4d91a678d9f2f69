"""Optimizers: from gradients to new weights. One file, one optimizer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pydantic import Field

from ...part import Part

if TYPE_CHECKING:
    import torch


class Optimizer(Part):
    """Makes a torch optimizer; the schedule multiplies its rate."""

    lr: float = Field(gt=0)
    """Learning rate; a profile sets it."""
    lr_scale: float = Field(default=1.0, gt=0)
    """Factor of `lr`: sweep this, so that a sweep makes sense under every profile."""
    layer_decay: float = Field(default=1.0, gt=0, le=1, json_schema_extra={"later": True})
    """Factor of the rate for each layer further down: heads and pooler have the whole rate, the top layer this share of
    it, the next its square, ..., the embeddings the least (Howard and Ruder 2018, arXiv:1801.06146; Zhang et al. 2021,
    arXiv:2006.05987)."""

    @property
    def rate(self) -> float:
        """The learning rate before the schedule's factor and the layers'."""
        return self.lr * self.lr_scale

    @abstractmethod
    def build(self, parameters: Iterable[torch.nn.Parameter] | Iterable[dict[str, Any]]) -> torch.optim.Optimizer:
        """Return the optimizer with rate `rate` of parameters, or of torch's groups of them (`params`)."""
