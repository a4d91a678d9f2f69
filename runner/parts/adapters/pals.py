"""PALs: projected attention layers of each task beside the layers of a shared encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from . import Adapter

if TYPE_CHECKING:
    from ..encoders.bert.architectures import Sizes
    from ..encoders.bert.model import Bert


class Pals(Adapter):
    """Adds to each layer a small attention of each task; the encoder is trained too, unless `freeze` is true.

    Stickland and Murray 2019, BERT and PALs (arXiv:1902.02671), section 3.3: GELU(up(attention(down(h)))) of the
    layer's input h is added before its last LayerNorm. `down` and `up` are shared by all layers. `up` begins at zero,
    so that training begins with the pretrained encoder.
    """

    type = "pals"
    freezes_encoder = False

    size: int = Field(default=204, ge=1, le=8192)
    """Width of the attention, a multiple of the encoder's attention heads."""

    def misfit(self, sizes: Sizes, frozen_layers: int) -> tuple[str, str] | None:
        """Return the field that does not fit into an encoder of these sizes, and why; None if all do."""
        if self.size % sizes.heads:
            return "size", f"`size` is {self.size}, no multiple of the encoder's {sizes.heads} attention heads"
        return None

    def weights(self, sizes: Sizes, tasks: int) -> int:
        """Return the number of weights that are added to an encoder of these sizes."""
        between = 2 * sizes.width * self.size + self.size + sizes.width
        return tasks * (between + 3 * sizes.layers * (self.size**2 + self.size))

    def attach(self, encoder: Bert, tasks: int) -> None:
        """Add the attention of each task to each layer."""
        from ..encoders.bert.adapters import ProjectedAttention

        encoder.pals = ProjectedAttention(encoder.width, self.size, len(encoder.blocks), tasks)
