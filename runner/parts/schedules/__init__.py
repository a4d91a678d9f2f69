"""Learning-rate schedules. One file per schedule."""

from __future__ import annotations

from abc import abstractmethod

from ...part import Part


class Schedule(Part):
    """Learning-rate schedule: a factor of the rate for each step."""

    @abstractmethod
    def factor(self, step: int, steps: int) -> float:
        """Return the factor of step `step` (from 0) of a run of `steps` steps."""
