"""The benchmarks' own arithmetic and command line, with one quick measurement."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import Case, Figure, measured

ROOT = Path(__file__).parents[1]


def test_cases_are_measured_in_turn_after_a_warm_up() -> None:
    calls: list[str] = []
    values = {"a": [9.0, 1.0, 5.0, 2.0], "b": [9.0, 4.0, 4.0, 4.0]}
    cases = [Case(name, lambda name=name: calls.append(name) or values[name].pop(0)) for name in "ab"]  # type: ignore[misc]
    figures = measured(cases, 3)
    assert calls == ["a", "b"] * 4
    assert [figure.samples for figure in figures] == [(1.0, 5.0, 2.0), (4.0, 4.0, 4.0)]
    assert [figure.median for figure in figures] == [2.0, 4.0]


@pytest.mark.parametrize(("goal", "met"), [(None, None), (2.0, True), (1.9, False)])
def test_a_goal_is_met_by_the_median(goal: float | None, met: bool | None) -> None:
    assert Figure(Case("x", lambda: 0.0, goal=goal), (1.0, 9.0, 2.0)).met is met


def test_the_command_measures_what_is_asked_for() -> None:
    command = [sys.executable, "-m", "benchmarks", "startup", "--only", "-c pass", "--rounds", "1"]
    done = subprocess.run([*command, "--json"], cwd=ROOT, capture_output=True, text=True, check=True)
    (said,) = map(json.loads, done.stdout.splitlines())
    assert (said["file"], said["figure"], said["goal"], said["met"]) == ("startup", "python -c pass", None, None)
    assert said["samples"] == [said["median"]] and 0 < said["median"] < 10
