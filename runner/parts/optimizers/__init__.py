"""Optimizers. One file per optimizer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import Field

from ...part import Part

if TYPE_CHECKING:
    import torch


class BuiltOptimizer(Protocol):
    """What training needs of an optimizer; `torch.optim.Optimizer` has it."""

    param_groups: list[dict[str, Any]]
    """The groups given to `Optimizer.build`, each with its learning rate `lr`."""

    def step(self) -> Any:
        """Update the parameters by their gradients; those without a gradient stay."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state of each parameter as tensors or numbers, `state[number][name]`."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Set what `state_dict` returned."""


class Optimizer(Part):
    """Builds a torch optimizer; the schedule multiplies its learning rate."""

    lr: float = Field(gt=0)
    """Learning rate; a profile sets it."""
    lr_scale: float = Field(default=1.0, gt=0)
    """Factor of `lr`; sweep this rather than `lr`, whose value depends on the profile."""
    layer_decay: float = Field(default=1.0, gt=0, le=1, json_schema_extra={"later": True})
    """Layer-wise decay of the learning rate: heads and pooler have the full rate, the top layer this fraction of it,
    the next its square, ..., the embeddings the lowest (Howard and Ruder 2018, arXiv:1801.06146; Zhang et al. 2021,
    arXiv:2006.05987)."""

    @property
    def rate(self) -> float:
        """The learning rate before schedule and layer decay."""
        return self.lr * self.lr_scale

    @abstractmethod
    def build(self, parameters: Iterable[torch.nn.Parameter] | Iterable[dict[str, Any]]) -> BuiltOptimizer:
        """Build the optimizer with learning rate `rate` for parameters or torch parameter groups (`params`)."""
