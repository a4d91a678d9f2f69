"""Schedules: the learning rate over a run. One file, one schedule."""

from __future__ import annotations

from abc import abstractmethod

from ...part import Part


class Schedule(Part):
    """Multiplies the learning rate."""

    @abstractmethod
    def factor(self, step: int, steps: int) -> float:
        """Return the factor of step `step` (from 0) of a run of `steps` steps."""
