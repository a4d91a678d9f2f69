"""A build with nothing to do: what it need not compute, what it still finds, and when it computes again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from builds import PCGRAD, TREE, built, names
from projects import project

from runner.build.build import Build
from runner.parts.suites.demo import Demo
from runner.results import crossfit, result_cache
from runner.tasks.predictions import Predictions


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = project(tmp_path_factory.mktemp("finished"), pcgrad=PCGRAD, tree=TREE)
    built(root, "tree", "sum")
    return root


@pytest.fixture
def root(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "project"))


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Take note of whatever reads examples or Predictions."""
    seen: list[str] = []

    def noted(cls: type, name: str) -> None:
        real = getattr(cls, name)
        monkeypatch.setattr(cls, name, lambda *a, **k: seen.append(name) or real(*a, **k))

    noted(Demo, "load")
    noted(Build, "_predict")
    return seen


def published(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / "results" / "demo").iterdir()}


def test_a_build_with_nothing_to_do_computes_nothing_and_says_and_writes_the_same(root: Path,
                                                                                 computed: list[str]) -> None:
    wanted, kept = published(root), root / "registry" / ".cache" / "results"
    said = built(root, "tree", "sum")
    assert computed == [] and published(root) == wanted
    shutil.rmtree(kept)
    again = built(root, "tree", "sum")
    assert "_predict" in computed and published(root) == wanted
    assert [e.to_json() for e in said] == [e.to_json() for e in again]
    for path in (root / "results" / "demo").iterdir():
        path.unlink()
    del computed[:]
    built(root, "tree", "sum")
    assert "_predict" not in computed and published(root) == wanted


def test_it_imports_neither_numpy_nor_torch(root: Path) -> None:
    code = ("import sys; sys.argv = ['mtrun', 'build', 'specs/tree.toml', 'specs/sum.toml']\n"
            "import atexit; atexit.register(lambda: print({'numpy', 'torch'} & {*sys.modules}))\n"
            "from runner.cli import main; main()")
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0 and "0 trained" in done.stderr and done.stdout.endswith("set()\n"), done.stdout


def alter(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (root / "registry" / ".cache" / "results").iterdir():
        data = path.read_bytes()
        path.write_bytes(data.replace(b'"overall": 0.', b'"overall": -0.'))


def tear(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (root / "registry" / ".cache" / "results").iterdir():
        path.write_bytes(path.read_bytes()[:100])


def unshelve(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(root / "registry" / ".cache" / "predictions")


def recode(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_cache, "CODE", (*result_cache.CODE, "files.py"))


def refine(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the code of a tree's node be another."""
    monkeypatch.setattr(result_cache, "sources", lambda node: {"ensembles/average.py": Path(__file__)})


def reseal(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a run be one that was made again: another manifest, of the same Predictions."""
    from runner.registry.manifest import json_with_checksum, parse_manifest
    from runner.registry.registry import MANIFEST

    for path in (root / "registry").glob(f"[0-9a-f]*/{MANIFEST}"):
        manifest = {key: value for key, value in parse_manifest(path.read_bytes()).items() if key != "sha256"}
        path.write_bytes(json_with_checksum(manifest | {"seconds": 1.5}))


@pytest.mark.parametrize("change", [alter, tear, unshelve, recode, refine, reseal])
def test_whatever_changes_is_computed_again(root: Path, monkeypatch: pytest.MonkeyPatch, computed: list[str],
                                            change: Callable[[Path, pytest.MonkeyPatch], None]) -> None:
    wanted = published(root)
    change(root, monkeypatch)
    built(root, "tree", "sum")
    assert "_predict" in computed
    assert {**published(root), "costs.json": b""} == {**wanted, "costs.json": b""}


@pytest.mark.parametrize("name", ["predictions.safetensors", "epochs.safetensors"])
def test_a_damaged_run_is_found_though_its_result_is_known(root: Path, name: str) -> None:
    run = min((root / "registry").glob("[0-9a-f]*"))
    data = (run / name).read_bytes()
    (run / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    events = built(root, "tree", "sum")
    assert len(names(events, "damaged")) == len(names(events, "trained")) == 1
    assert (run / name).read_bytes() == data


def test_a_new_name_of_a_known_tree_is_a_result_of_its_own(root: Path) -> None:
    shutil.copy(root / "specs" / "tree.toml", root / "specs" / "other.toml")
    built(root, "other")
    old, new = (json.loads((root / "results" / "demo" / f"{name}.json").read_bytes()) for name in ("tree", "other"))
    assert new["tree"].pop("name") == "other" and old["tree"].pop("name") == "tree"
    assert new.pop("spec") == "specs/other.toml" and old.pop("spec") == "specs/tree.toml" and old == new


def test_honest_scores_are_not_asked_for_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crossfit.CrossFit, "honest", lambda self, id: 1 / 0)
    monkeypatch.setattr(Predictions, "from_bytes", lambda *a: 1 / 0)
    assert built(root, "tree", "sum")[-1].values["failed"] == 0
