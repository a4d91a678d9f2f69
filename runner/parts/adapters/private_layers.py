"""Top layers of the encoder that each task has for itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from . import Adapter

if TYPE_CHECKING:
    from ..encoders.bert.architectures import Sizes
    from ..encoders.bert.model import Bert


class PrivateLayers(Adapter):
    """Gives each task its own copy of the encoder's top layers; the layers below are shared and trained.

    A common form of hard parameter sharing (Caruana 1997); gradients are combined in the shared layers only.
    """

    type = "private_layers"
    freezes_encoder = False
    can_be_merged = True

    layers: int = Field(default=1, ge=1, le=96)
    """Number of layers from the top that each task has for itself."""

    def misfit(self, sizes: Sizes, frozen_layers: int) -> tuple[str, str] | None:
        """Return the field that does not fit into an encoder of these sizes, and why; None if all do."""
        if self.layers > sizes.layers:
            return "layers", f"`layers` is {self.layers}, but the encoder has {sizes.layers}"
        if self.layers + frozen_layers > sizes.layers:
            return "layers", (f"`layers` is {self.layers}, but of the encoder's {sizes.layers} layers the lowest "
                              f"{frozen_layers} are frozen (`frozen_layers`)")
        return None

    def weights(self, sizes: Sizes, tasks: int) -> int:
        """Return the number of weights that are added to an encoder of these sizes."""
        wide, inner = sizes.width, sizes.intermediate
        layer = 4 * wide * (wide + 1) + 2 * wide * inner + inner + wide + 4 * wide
        return (tasks - 1) * self.layers * layer

    def attach(self, encoder: Bert, tasks: int) -> None:
        """Copy the parameters of the top layers for each task."""
        from ..encoders.bert.adapters import make_private

        for block in encoder.blocks[-self.layers:]:
            make_private(block, tasks)
