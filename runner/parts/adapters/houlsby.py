"""Bottleneck adapters after the attention and the feed-forward layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from . import Adapter

if TYPE_CHECKING:
    from ..encoders.bert.architectures import Sizes
    from ..encoders.bert.model import Bert


class Houlsby(Adapter):
    """Adds x + up(GELU(down(x))) after the attention and after the feed-forward layer, before residual and LayerNorm.

    Houlsby et al. 2019 (arXiv:1902.00751), section 2.1. The encoder, with its LayerNorms, is frozen.
    """

    type = "houlsby"

    size: int = Field(default=64, ge=1, le=8192)
    """Width of the bottleneck."""
    per_task: bool = False
    """Give each task adapters of its own; otherwise all tasks share them."""

    def weights(self, sizes: Sizes, tasks: int) -> int:
        """Return the number of weights that are added to an encoder of these sizes."""
        bottleneck = 2 * sizes.width * self.size + self.size + sizes.width
        return 2 * sizes.layers * bottleneck * (tasks if self.per_task else 1)

    def attach(self, encoder: Bert, tasks: int) -> None:
        """Add two bottlenecks to each layer."""
        from ..encoders.bert.adapters import Bottleneck

        for block in encoder.blocks:
            block.mix_adapter, block.contract_adapter = (
                Bottleneck(encoder.width, self.size, tasks if self.per_task else 0) for _ in range(2))
