"""LoRA: low-rank updates of weight matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from . import Adapter

if TYPE_CHECKING:
    from ..encoders.bert.architectures import Sizes
    from ..encoders.bert.model import Bert

Target = Literal["query", "key", "value", "attention_output", "intermediate", "output"]
"""A linear layer of a transformer layer, by BERT's names."""

_MODULES = {"attention_output": "mix", "intermediate": "expand", "output": "contract"}


class Lora(Adapter):
    """Adds a product of two thin matrices to weight matrices of each layer, W + alpha / rank B A; W is frozen.

    Hu et al. 2022, LoRA (arXiv:2106.09685), section 4.1. A [rank, inputs] is random, B [outputs, rank] begins at zero.
    """

    type = "lora"
    can_be_averaged = False
    can_be_merged = True
    has_magnitude: ClassVar[bool] = False

    rank: int = Field(default=8, ge=1, le=4096)
    """Rank of the updates."""
    alpha: float = Field(default=16.0, gt=0)
    """Scale of the updates, divided by the rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the input of A."""
    targets: tuple[Target, ...] = Field(default=("query", "value"), min_length=1)
    """Linear layers with an update, by BERT's names; those of the paper are query and value."""
    per_task: bool = False
    """Give each task updates of its own; otherwise all tasks share them."""

    def misfit(self, sizes: Sizes, frozen_layers: int) -> tuple[str, str] | None:
        """Return the field that does not fit into an encoder of these sizes, and why; None if all do."""
        if self.rank > sizes.width:
            return "rank", f"`rank` is {self.rank}, more than the width {sizes.width} of the encoder"
        return None

    def weights(self, sizes: Sizes, tasks: int) -> int:
        """Return the number of weights that are added to an encoder of these sizes."""
        wide, inner = sizes.width, sizes.intermediate
        shapes = {"intermediate": (inner, wide), "output": (wide, inner)}
        each = [shapes.get(target, (wide, wide)) for target in dict.fromkeys(self.targets)]
        of_layer = sum(self.rank * (outputs + inputs) + self.has_magnitude * outputs for outputs, inputs in each)
        return sizes.layers * of_layer * (tasks if self.per_task else 1)

    def attach(self, encoder: Bert, tasks: int) -> None:
        """Add an update to each target in each layer."""
        from ..encoders.bert.adapters import LowRank

        for block in encoder.blocks:
            for target in dict.fromkeys(self.targets):
                linear = block.get_submodule(_MODULES.get(target, target))
                linear.adapter = LowRank(
                    linear.get_parameter("weight"), self.rank, self.alpha / self.rank, self.dropout,
                    tasks if self.per_task else 0, has_magnitude=self.has_magnitude)
