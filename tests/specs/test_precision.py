"""`precision = "auto"`: settled when the plan is made, by what the machine computes; emulated bf16 is warned of."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from projects import project
from systems import build, mtrun

from runner import machine
from runner.plan.plan import Plan
from runner.plan.planner import make_plan
from runner.specs.spec import Leaf

NATIVE, EMULATED = "avx512f avx512bw avx512_bf16", "avx512f avx512bw avx2"


@pytest.fixture(params=[NATIVE, EMULATED])
def native(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Be on a machine without GPUs whose processor computes bf16, or does not."""
    is_native = request.param == NATIVE
    be(monkeypatch, is_native)
    return is_native


def be(monkeypatch: pytest.MonkeyPatch, is_native: bool) -> None:
    monkeypatch.setattr(machine, "_cpuinfo", lambda: {"flags": NATIVE if is_native else EMULATED})
    monkeypatch.setattr(machine, "_built_for", lambda: "")
    for name in machine.LIMITS:
        monkeypatch.delenv(name, raising=False)


def planned(root: Path, *settings: str) -> tuple[Plan, str, str]:
    """Return the plan of `sum`, its id and its precision."""
    plan = make_plan(root, [root / "specs" / "sum.toml"], "demo", settings)
    (node,) = plan.nodes.values()
    assert isinstance(node.spec, Leaf)
    return plan, node.id, node.spec.model.train.precision


def test_auto_is_what_the_machine_computes_and_has_its_id(tmp_path: Path, native: bool) -> None:
    root = project(tmp_path)
    plan, id, precision = planned(root, "train.precision=auto")
    assert precision == ("bf16" if native else "fp32")
    assert id == planned(root, f"train.precision={precision}")[1]
    assert planned(root)[2] == "fp32", "the default is no `auto`: ids of old specs stay"
    (why,) = plan.settled
    assert f"precision `auto` is {precision} here" in why and not plan.notes
    command = ("plan", "specs/sum.toml", "--set", "train.precision=auto")
    assert why in mtrun(root, *command).out
    assert json.loads(mtrun(root, *command, "--json").out.splitlines()[-1])["settled"] == [why]


def test_bf16_that_would_be_emulated_is_warned_of_with_its_place(tmp_path: Path, native: bool) -> None:
    root = project(tmp_path)
    spec = root / "specs" / "sum.toml"
    spec.write_text(spec.read_text() + '[train]\nprecision = "bf16"\n')
    plan, _, precision = planned(root)
    assert precision == "bf16"
    line = next(n for n, text in enumerate(spec.read_text().splitlines(), 1) if "bf16" in text)
    told = [f"specs/sum.toml:{line}:" in note and "two to three times" in note for note in plan.notes]
    assert told == [True] * (not native)


def test_a_limit_of_the_library_counts_as_the_processor_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    be(monkeypatch, True)
    root = project(tmp_path)
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", "AVX2")
    plan, _, precision = planned(root, "train.precision=auto")
    assert precision == "fp32" and "DNNL_MAX_CPU_ISA=AVX2" in plan.settled[0]
    (note,) = planned(root, "train.precision=bf16")[0].notes
    assert "the command line" in note and "about eleven times as slow" in note


def test_a_model_of_another_machine_answers_in_what_this_one_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                                      ) -> None:
    from runner.inference.system import System

    be(monkeypatch, True)
    root = project(tmp_path)
    build(root, "sum", settings=["train.precision=bf16"])
    for is_native in (True, False):
        be(monkeypatch, is_native)
        plan, id, _ = planned(root, "train.precision=bf16")
        system = System(plan, id)
        assert system.leaves[id].network.model.train.precision == ("bf16" if is_native else "fp32")


@pytest.mark.parametrize("profile", ["minilm", "paper"])
def test_real_profiles_leave_it_to_the_machine(profile: str, native: bool) -> None:
    from runner.specs.loader import Loader

    root = Path(__file__).parents[2]
    ((leaf,),) = Loader(root, profile).load_all([root / "specs" / "models" / "sum.toml"])
    assert isinstance(leaf, Leaf) and leaf.model.train.precision == ("bf16" if native else "fp32")


def test_gc_keeps_what_another_machine_settled_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = project(tmp_path)
    spec = root / "specs" / "sum.toml"
    spec.write_text(spec.read_text() + '[train]\nprecision = "auto"\n')
    be(monkeypatch, True)
    build(root, "sum")
    shutil.rmtree(root / "results")
    for is_native in (True, False):
        be(monkeypatch, is_native)
        assert mtrun(root, "gc", "-n").out == ""
    spec.write_text(spec.read_text() + "seed = 5\n")
    assert "sum" in mtrun(root, "gc", "-n").out, "no spec means it any more"
