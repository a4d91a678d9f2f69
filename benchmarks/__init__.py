"""Benchmarks: figures with their goals, `python -m benchmarks [FILE...] [--only TEXT] [--json]`.

One file, one group of figures, and its existence registers it. A file defines `cases()`, which returns what is to be
measured, and may define `RATIOS`, what of these is compared, and `gate()`, which proves in the same run that what is
compared computes the same; it returns what it saw and raises AssertionError. All cases of a file are measured in turn
(A B C A B C ...): what else the machine does meets them all alike.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
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
    stretch: float | None = None


@dataclass(frozen=True)
class Ratio:
    """Two cases of a file against each other: `over` / `under`, round by round."""

    name: str
    over: str
    under: str
    goal: float | None = None
    stretch: float | None = None
    at_least: bool = True
    """The ratio is to be at least the goal, as a speed-up; or at most, as a cost."""


@dataclass(frozen=True)
class Figure:
    """What was measured."""

    name: str
    samples: tuple[float, ...]
    unit: str
    goal: float | None = None
    stretch: float | None = None
    at_least: bool = False

    @property
    def median(self) -> float:
        """The figure that counts."""
        return statistics.median(self.samples)

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None where there is none."""
        return None if self.goal is None else self._reaches(self.goal)

    @property
    def verdict(self) -> str:
        """Goal and stretch goal, and which of them is reached, in words."""
        if self.goal is None:
            return ""
        best = self.stretch is not None and self._reaches(self.stretch)
        word = "stretch" if best else "met" if self.met else "missed"
        goals = " / ".join(f"{goal:g}" for goal in (self.goal, self.stretch) if goal is not None)
        return f"{'at least' if self.at_least else 'at most'} {goals}: {word}"

    def _reaches(self, goal: float) -> bool:
        return self.median >= goal if self.at_least else self.median <= goal


def measured(cases: Sequence[Case], rounds: int, ratios: Sequence[Ratio] = ()) -> list[Figure]:
    """Measure each case once to warm up, then all of them in turn, `rounds` times; ratios are taken within a round."""
    for case in cases:
        case.sample()
    samples = [[case.sample() for case in cases] for _ in range(rounds)]
    columns = dict(zip((case.name for case in cases), zip(*samples, strict=True), strict=True))
    figures = [Figure(case.name, columns[case.name], case.unit, case.goal, case.stretch) for case in cases]
    return [*figures, *(_ratio(ratio, columns) for ratio in ratios)]


def _ratio(ratio: Ratio, columns: Mapping[str, tuple[float, ...]]) -> Figure:
    """Return the figure of a ratio of two measured cases."""
    pairs = zip(columns[ratio.over], columns[ratio.under], strict=True)
    return Figure(ratio.name, tuple(over / under for over, under in pairs), "x", ratio.goal, ratio.stretch,
                  ratio.at_least)
