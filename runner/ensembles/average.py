"""The mean of several members."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from ..parts import Member
from ..predictions import Predictions
from ..suites import Data
from . import Choice, Ensemble, mean


class Average(Ensemble):
    """The mean of the members' logits per task, over the members that have the task."""

    type = "average"
    ordered = False

    members: tuple[Member, ...] = Field(min_length=1)
    """Models and ensembles; one that is named twice counts twice."""

    def apply(self, choice: Choice, members: Sequence[Predictions], data: Data, ids: Sequence[str]) -> Predictions:
        """Return the mean, which depends neither on the order nor on the ids of the members."""
        return mean(members, data, ids)
