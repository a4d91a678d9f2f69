"""Benchmarks: figures with their goals, `python -m benchmarks [FILE...] [--only TEXT] [--json]`.

One file, one group of figures, and its existence registers it. A file defines `cases()`, which returns what is to be
measured. All cases of a file are measured in turn (A B C A B C ...): what else the machine does meets them all alike.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """Something that can be measured again and again."""

    name: str
    sample: Callable[[], float]
    """Does it once and returns the figure."""
    unit: str = "s"
    goal: float | None = None
    """The figure is to be at most this; None for what is only there to be compared with."""


@dataclass(frozen=True)
class Figure:
    """What a case gave."""

    case: Case
    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """The figure that counts."""
        return statistics.median(self.samples)

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None where there is none."""
        return None if self.case.goal is None else self.median <= self.case.goal


def measured(cases: Sequence[Case], rounds: int) -> list[Figure]:
    """Measure each case once to warm up, then all of them in turn, `rounds` times."""
    for case in cases:
        case.sample()
    samples = [[case.sample() for case in cases] for _ in range(rounds)]
    return [Figure(case, tuple(column)) for case, column in zip(cases, zip(*samples, strict=True), strict=True)]
