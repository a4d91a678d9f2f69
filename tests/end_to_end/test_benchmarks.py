"""The benchmarks' own arithmetic and command line, with one quick measurement."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from benchmarks import Case, Figure, Ratio, gpu, measured, steps, workload
from benchmarks.__main__ import main
from runner import machine

ROOT = Path(__file__).parents[2]


def test_cases_are_measured_in_turn_after_a_warm_up() -> None:
    calls: list[str] = []
    values = {"a": [9.0, 1.0, 5.0, 2.0], "b": [9.0, 4.0, 4.0, 4.0]}
    cases = [Case(name, lambda name=name: calls.append(name) or values[name].pop(0)) for name in "ab"]  # type: ignore[misc]
    figures = measured(cases, 3)
    assert calls == ["a", "b"] * 4
    assert [figure.samples for figure in figures] == [(1.0, 5.0, 2.0), (4.0, 4.0, 4.0)]
    assert [figure.median for figure in figures] == [2.0, 4.0]


def test_a_ratio_is_taken_round_by_round() -> None:
    values = {"slow": [9.0, 4.0, 6.0, 30.0], "fast": [9.0, 2.0, 2.0, 10.0]}
    cases = [Case(name, lambda name=name: values[name].pop(0)) for name in values]  # type: ignore[misc]
    *_, figure = measured(cases, 3, [Ratio("gain", "slow", "fast", 2.5, 3.5)])
    assert (figure.samples, figure.median, figure.met) == ((2.0, 3.0, 3.0), 3.0, True)
    assert figure.verdict == "at least 2.5 / 3.5: met"


@pytest.mark.parametrize(("goal", "at_least", "verdict"), [
    (None, False, ""), (2.0, False, "at most 2: met"), (1.9, False, "at most 1.9: missed"),
    (2.0, True, "at least 2: met"), (2.1, True, "at least 2.1: missed")])
def test_a_goal_is_met_by_the_median(goal: float | None, at_least: bool, verdict: str) -> None:
    figure = Figure("x", (1.0, 9.0, 2.0), "s", goal, at_least=at_least)
    assert figure.verdict == verdict
    assert figure.met is (None if goal is None else verdict.endswith("met"))
    assert not verdict or Figure("x", (2.0,), "s", goal, goal, at_least).verdict.endswith(
        "stretch" if figure.met else "missed")


def test_the_command_measures_what_is_asked_for() -> None:
    command = [sys.executable, "-m", "benchmarks", "startup", "--only", "-c pass", "--rounds", "1"]
    done = subprocess.run([*command, "--json"], cwd=ROOT, capture_output=True, text=True, check=True)
    (said,) = map(json.loads, done.stdout.splitlines())
    assert (said["file"], said["figure"], said["goal"], said["met"]) == ("startup", "python -c pass", None, None)
    assert said["samples"] == [said["median"]] and 0 < said["median"] < 10
    assert (said["processor"], said["torch"], said["threads"]) == (machine.processor(), version("torch"), 1)
    assert said["instructions"].startswith(machine.instruction_set())


def test_bf16_is_measured_where_it_is_no_emulation(monkeypatch: pytest.MonkeyPatch) -> None:
    """All else is measured as ever, and each output says on what."""
    cases = [Case(name, lambda: 2.0) for name in ("a fp32", "a bf16", "b fp32")]
    ratios = [Ratio("gain of bf16", "a fp32", "a bf16", 1), Ratio("gain", "a fp32", "b fp32", 1)]
    monkeypatch.setitem(sys.modules, "benchmarks.steps", SimpleNamespace(cases=lambda: cases, RATIOS=ratios))

    def said(native: bool, *options: str) -> Result:
        monkeypatch.setattr(machine, "computes_bf16", lambda device: (native, "the reason"))
        return CliRunner().invoke(main, ["steps", "--rounds", "1", *options], catch_exceptions=False)

    def figures(native: bool) -> list[str]:
        return [json.loads(line)["figure"] for line in said(native, "--json").stdout.splitlines()]

    assert figures(True) == ["a fp32", "a bf16", "b fp32", "gain of bf16", "gain"]
    assert figures(False) == ["a fp32", "b fp32", "gain"]
    text = said(False).stdout
    assert text.count("bf16") == 1 and "bf16 is not measured: the reason\n" in text
    assert machine.processor() in text and f"torch {version('torch')}" in text and "1 thread" in text
    assert "not measured" not in said(True).stdout


def test_what_is_measured_on_a_gpu_runs_on_a_small_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its contenders take steps, on what device there is; their losses are those of the course's loop."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    monkeypatch.setattr(gpu, "SIZES", {"tiny": sizes})
    monkeypatch.setattr(gpu, "STEPS", 1)
    monkeypatch.setattr(gpu, "PIECES", 300)
    made = workload.made_up(0.01)
    monkeypatch.setattr(workload, "data", lambda: made)
    figures = {figure.name: figure.median for figure in measured(gpu.contenders("tiny"), 1)}
    assert min(figures.values()) > 0 and {ratio.over for ratio in gpu.RATIOS[:2]} <= figures.keys()
    assert gpu.RUN == 10 * 17_688, "a last batch of 2 of the 141,498 pairs"
    folder = gpu.checkpoint("tiny")
    assert "20 losses" in steps.losses_are_equal("tiny", folder, f"encoder.init={folder}")
