"""Adapters: small trained modules in a pretrained encoder, or layers of its own for each task. One file per adapter."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from ...part import Part

if TYPE_CHECKING:
    from ..encoders.bert.architectures import Sizes
    from ..encoders.bert.model import Bert


class Adapter(Part):
    """Adds trained parameters to an encoder, shared by all tasks or of each task."""

    freezes_encoder: ClassVar[bool] = True
    """Whether the encoder's own weights are frozen; a run then stores only what it trained."""
    can_be_averaged: ClassVar[bool] = True
    """Whether a soup may average the weights of several runs; not those whose products are what counts."""

    can_be_merged: ClassVar[bool] = False
    """Whether an encoder without adapters can compute the same, so that it can be exported to transformers."""

    def misfit(self, sizes: Sizes, frozen_layers: int) -> tuple[str, str] | None:
        """Return the field that does not fit into an encoder of these sizes, and why; None if all do.

        `frozen_layers` is the number of its lowest layers that are frozen.
        """
        return None

    def weights(self, sizes: Sizes, tasks: int) -> int:
        """Return the number of weights that are added to an encoder of these sizes, for a forecast."""
        return 0

    @abstractmethod
    def attach(self, encoder: Bert, tasks: int) -> None:
        """Add the trained modules to an encoder, for this number of tasks.

        A parameter of each task has a leading dimension [tasks, ...], and its module `is_private = True`. Random
        weights are drawn from torch's global generator, which the caller has seeded.
        """
