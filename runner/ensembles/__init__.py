"""Ensembles: Predictions -> Predictions. One file, one node type."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from ..parts import Part
from ..scores import Predictions
from ..suites import Data


class Member:
    """A child of a node, as a spec names it: a path, an inline table, `run:ID`. The spec room resolves it."""


class Ensemble(Part):
    """Makes one node's Predictions from those of its members."""

    @abstractmethod
    def combine(self, members: Sequence[Predictions], data: Data) -> Predictions:
        """Return the node's Predictions from those of `children`, in their order; `data` gives tasks and labels."""

    def children(self) -> tuple[Any, ...]:
        """Return the members in the order in which `combine` gets their Predictions."""
        raise NotImplementedError
