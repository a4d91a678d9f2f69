"""Results of several machines in one folder: replicas are never mixed, damage is told, outdated trees are scored again.

Two instruction sets of one processor stand for two machines: they round differently.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from folders import text
from hypothesis import given, settings
from hypothesis import strategies as st
from projects import project
from result_trees import ensemble, leaf, publish, result
from systems import SPECS, build, mtrun

from runner.build.build import Build
from runner.build.scheduler import Scheduler
from runner.plan.planner import make_plan
from runner.registry.registry import Registry
from runner.results.result import Result, ResultNode
from runner.results.result_folder import read, read_profile
from runner.worker.executors.inline import Inline

AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "DNNL_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
LOW, HIGH = (0.5, 0.75, 0.5, 0.666667), (0.6, 0.75, 0.5, 0.7)


def built(root: Path, *specs: str, environment: dict[str, str] | None = None) -> Path:
    """Build specs of a project in a process with some environment; return the project's folder."""
    command = [sys.executable, "-m", "runner", "build", *(f"specs/{spec}.toml" for spec in specs), "-q"]
    done = subprocess.run([*command, "--executor", "inline"], cwd=root, capture_output=True, text=True,
                          env={**os.environ, **(environment or {}), "PYTHONPATH": str(Path(__file__).parents[2])})
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return two projects of the same specs, built with two instruction sets."""
    here, there = (project(tmp_path_factory.mktemp(name), **SPECS) for name in ("here", "there"))
    built(here, "deep", "mean", "sum")
    built(there, "deep", "mean", "sum", environment=AVX2)
    ids = Registry(here / "registry").ids()
    assert ids == Registry(there / "registry").ids(), "an id says what was asked, not who answered"
    digests = [[run.digest for run in Registry(root / "registry").runs()] for root in (here, there)]
    if digests[0] == digests[1]:
        pytest.skip("this processor rounds the same with both instruction sets, or has but one")
    return here, there


@pytest.fixture
def mixed(machines: tuple[Path, Path], tmp_path: Path) -> Path:
    """Return the first machine's project with one of the other's results, as git would bring it."""
    here, there = machines
    shutil.copytree(here, tmp_path / "p")
    shutil.copy(there / "results" / "demo" / "mean.json", tmp_path / "p" / "results" / "demo")
    return tmp_path / "p"


def leaves(results: list[Result]) -> dict[str, set[str]]:
    """Return the digests under which each leaf stands in some results."""
    found: dict[str, set[str]] = {}
    for node in (node for one in results for node in one.tree.leaves()):
        found.setdefault(node.id, set()).add(node.digest)
    return found


# Two instruction sets ------------------------------------------------------------------------------------------------


def test_results_of_two_machines_make_one_table_of_one_set_of_answers(mixed: Path) -> None:
    done = mtrun(mixed, "table", "results")
    assert done.code == 0 and "mean.json" in done.err and "other replicas" in done.err
    (found,) = read(mixed / "results")
    assert all(len(digests) == 1 for digests in leaves(found.results).values())
    here = {run.id: {run.digest} for run in Registry(mixed / "registry").runs()}
    assert leaves(found.results) == here, "those of the runs that are here"
    assert [path.name for path in found.left_out] == ["mean.json"]


def test_a_result_of_other_replicas_is_left_out_though_no_other_result_has_its_runs(mixed: Path) -> None:
    (mixed / "results" / "demo" / "deep.json").unlink()
    (found,) = read(mixed / "results")  # sum.json is of a run here, mean.json of another machine's `sum` and `pcgrad`
    assert [path.name for path in found.files] == ["sum.json"]
    assert [path.name for path in found.left_out] == ["mean.json"]
    (mixed / "results" / "demo" / "sum.json").unlink()
    (found,) = read(mixed / "results")
    assert [path.name for path in found.files] == ["mean.json"], "where none is of the runs here all are shown"


def test_without_the_registry_the_greater_part_is_shown(mixed: Path) -> None:
    shutil.rmtree(mixed / "registry")
    (found,) = read(mixed / "results")
    assert sorted(path.name for path in found.files) == ["deep.json", "sum.json"]
    assert mtrun(mixed, "table", "results").code == 0


@pytest.mark.parametrize("command", ["plot", "report"])
def test_pictures_and_page_leave_out_what_the_table_does(mixed: Path, command: str) -> None:
    if command == "plot":
        pytest.importorskip("matplotlib")
    (mixed / "results" / "demo" / "deep.json").unlink()  # it holds `mean`, too
    done = mtrun(mixed, command, "results")
    assert done.code == 0, done.err
    said = done.err if command == "plot" else (mixed / "results" / "report.html").read_text()
    assert "mean.json" in said and "other replicas" in said
    assert not list((mixed / "results").rglob("tree-mean.svg"))


def test_the_next_build_scores_what_others_brought_again_from_the_runs_here(mixed: Path) -> None:
    mine = (mixed / "results" / "demo" / "deep.json").read_bytes()
    events = build(mixed, "sum")
    assert [(event.name, event.event) for event in events if event.event == "rescored"] == [("mean", "rescored")]
    (found,) = read(mixed / "results")
    assert not found.left_out and (mixed / "results" / "demo" / "deep.json").read_bytes() == mine
    tree = found.files[mixed / "results" / "demo" / "mean.json"].tree
    assert tree == next(node for node in Result.from_json(mine, "").tree.nodes() if node.name == "mean")


def test_runs_of_another_machine_take_all_trees_of_them_along(machines: tuple[Path, Path], tmp_path: Path) -> None:
    here, there = machines
    root = shutil.copytree(here, tmp_path / "p")
    shutil.rmtree(root / "registry")
    shutil.copytree(there / "registry", root / "registry")
    build(root, "sum")
    for name in ("deep", "mean", "sum"):
        file = Path("results", "demo", f"{name}.json")
        assert (root / file).read_bytes() == (there / file).read_bytes()
    assert mtrun(root, "members", "specs/mean.toml").code == 0


def test_published_scores_stand_beside_mine_with_their_machine(machines: tuple[Path, Path], tmp_path: Path) -> None:
    here, there = machines
    root = shutil.copytree(here, tmp_path / "p")
    shutil.copytree(there / "results" / "demo", root / "results" / "published" / "demo")
    before = {path: path.read_bytes() for path in (root / "results" / "published").rglob("*.*")}
    build(root, "deep")
    done = mtrun(root, "table", "results", "--columns", "name,overall,overall.published,sentiment.published")
    assert done.code == 0 and "published: in results/published, of the same system, made on cpu" in done.out
    frame = json.loads(mtrun(root, "table", "results", "--format", "json").out)[0]["rows"]
    theirs = {node.id: node.shown()["dev"]["overall"] for node in read_profile(root / "results" / "published" / "demo")
              .files[root / "results" / "published" / "demo" / "deep.json"].tree.nodes()}
    assert {row["id"]: row["overall.published"] for row in frame}.items() <= theirs.items()
    assert {path: path.read_bytes() for path in (root / "results" / "published").rglob("*.*")} == before


def test_what_is_published_is_shown_where_nothing_was_built(machines: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(machines[0] / "results" / "demo", tmp_path / "results" / "published" / "demo")
    before = sorted(path.name for path in (tmp_path / "results").rglob("*"))
    done = mtrun(tmp_path, "table", "results")
    assert done.code == 0 and "## published/demo: " in done.out and "nothing is built here yet" in done.err
    assert sorted(path.name for path in (tmp_path / "results").rglob("*")) == before


def test_a_bundle_of_another_machine_leaves_what_is_here(machines: tuple[Path, Path], tmp_path: Path) -> None:
    here, there = machines
    assert mtrun(there, "export", "specs/deep.toml", "-o", str(tmp_path / "b.zip")).code == 0
    root = shutil.copytree(here, tmp_path / "p")
    (root / "results" / "demo" / "deep.json").unlink()
    done = mtrun(root, "import", str(tmp_path / "b.zip"))
    assert done.code == 0 and "0 runs" in done.out, done.err
    table = mtrun(root, "table", "results")
    assert table.code == 0 and "deep.json" in table.err, "the imported tree is of the other machine's runs"
    build(root, "sum")
    file = Path("results", "demo", "deep.json")
    assert (root / file).read_bytes() == (here / file).read_bytes()
    assert mtrun(root, "import", str(tmp_path / "b.zip")).code == 0


# Damage --------------------------------------------------------------------------------------------------------------


def test_other_scores_of_the_same_predictions_are_damage_of_one_profile(mixed: Path) -> None:
    shutil.copytree(mixed / "results" / "demo", mixed / "results" / "other")
    file = mixed / "results" / "demo" / "sum.json"
    tree = json.loads(file.read_bytes())
    tree["tree"]["scores"]["dev"]["sentiment"] = 0.99
    file.write_text(json.dumps(tree))
    done = mtrun(mixed, "table", "results")
    assert done.code == 3 and "## other: " in done.out and "## demo: " not in done.out
    assert str(file.relative_to(mixed)) in done.err and "mtrun build specs/sum.toml --profile demo" in done.err
    build(mixed, "sum")
    assert mtrun(mixed, "table", "results").code == 0


def test_a_build_mends_a_result_that_was_changed_by_hand(mixed: Path) -> None:
    file = mixed / "results" / "demo" / "deep.json"
    right = file.read_bytes()
    changed = json.loads(right)
    next(node for node in changed["tree"]["members"] if node.get("name") == "mean")["scores"]["dev"]["overall"] = 0.99
    file.write_text(json.dumps(changed))
    build(mixed, "mean")
    assert file.read_bytes() == right


def test_results_of_older_versions_are_replicas_and_never_damage(tmp_path: Path) -> None:
    one, two = leaf("sum", "a", LOW), leaf("sum", "a", HIGH)
    trees = [ensemble(name, digit, "average of 1", node.scores["dev"].values(), node)  # type: ignore[arg-type]
             for name, digit, node in (("x", "1", one), ("y", "2", two), ("z", "3", two))]
    publish(tmp_path, *map(result, trees))
    (found,) = read(tmp_path)
    assert not found.problems and [one.tree.name for one in found.results] == ["y", "z"]
    assert "x.json" in found.notes[0]


# Choosing one set of answers -----------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(st.lists(st.dictionaries(st.integers(0, 4), st.integers(0, 2), min_size=1), min_size=1, max_size=8))
def test_one_table_never_holds_two_replicas_and_leaves_out_only_what_would(trees: list[dict[int, int]]) -> None:
    """Trees are drawn as the replica (0 to 2) that each holds of some of five models."""
    import tempfile

    def of(model: int, replica: int) -> ResultNode:
        scores = (0.5 + replica / 10, 0.75, 0.5, 0.7)
        return leaf(f"m{model}", str(model), scores, digest=f"{replica}{model}" * 6)

    results = [result(ensemble(f"t{number}", "0", "average", LOW, *(of(*pair) for pair in tree.items()))
                      .model_copy(update={"id": f"{number:011x}f"})) for number, tree in enumerate(trees)]
    with tempfile.TemporaryDirectory() as name:
        (found,) = read(publish(Path(name), *results))
        assert not found.problems and found.files
        assert all(len(digests) == 1 for digests in leaves(found.results).values())
        for other in found.left_out.values():
            both = leaves([*found.results, other])
            assert any(len(digests) > 1 for digests in both.values()), "it would have fitted in"


# Names ---------------------------------------------------------------------------------------------------------------


def test_each_setting_has_a_result_of_its_own_and_the_table_a_row(tmp_path: Path) -> None:
    root = project(tmp_path, **SPECS)
    build(root, "mean")
    for seed in (1, 2):
        build(root, "sum", settings=[f"train.seed={seed}", "resources.checkpoint_seconds=5"])
    names = {path.stem for path in (root / "results" / "demo").glob("*.json")}
    assert {"mean", "sum@seed=1", "sum@seed=2"} <= names
    table = text(root / "results", "plain")
    for name in ("sum@seed=1", "sum@seed=2", "sum over 2 seeds", "sum ", "pcgrad"):
        assert sum(name in line for line in table.splitlines()) >= 1, name
    for command in ("ls", "report"):
        assert "sum@seed=2" in mtrun(root, command).out + (
            (root / "results" / "report.html").read_text() if command == "report" else "")
    assert "sum@seed=2" in mtrun(root, "show", "sum@seed=2").out


def test_settings_of_one_short_name_are_two_names(tmp_path: Path) -> None:
    root = project(tmp_path)
    for setting in ("train.seed=5", "suite.seed=5", "optimizer.lr=0.002", "resources.threads=1"):
        build(root, "sum", settings=[setting])
    names = {path.stem for path in (root / "results" / "demo").glob("sum*.json")}
    assert names == {"sum@seed=5", "sum@suite.seed=5", "sum@optimizer.lr=0.002", "sum"}


@pytest.mark.parametrize(("other", "settings"), [("a/sum", []), ("sum@seed=5", ["--set", "train.seed=5"])])
def test_no_result_is_overwritten_by_another_spec_of_its_name(tmp_path: Path, other: str, settings: list[str]) -> None:
    root = project(tmp_path)
    (root / "specs" / "a").mkdir()
    path = root / "specs" / f"{other}.toml"
    path.write_text((root / "specs" / "sum.toml").read_text() + "[train]\nseed = 9\n")
    assert mtrun(root, "build", "specs/sum.toml", *settings, "--executor", "inline").code == 0
    before = {file: file.read_bytes() for file in (root / "results").rglob("*.json")}
    done = mtrun(root, "build", f"specs/{other}.toml", "--executor", "inline")
    assert done.code == 2 and "two specs are called" in done.err and "specs/sum.toml" in done.err
    assert {file: file.read_bytes() for file in (root / "results").rglob("*.json")} == before
    path.write_text('name = "renamed"\n' + path.read_text())
    assert mtrun(root, "build", f"specs/{other}.toml", "--executor", "inline").code == 0
    assert all(file.read_bytes() == data for file, data in before.items() if file.name.startswith("sum"))


def test_a_spec_that_was_moved_keeps_its_result(tmp_path: Path) -> None:
    root = project(tmp_path)
    assert mtrun(root, "build", "specs/sum.toml", "--executor", "inline").code == 0
    (root / "specs" / "sum.toml").rename(root / "specs" / "moved.toml")
    (root / "specs" / "a").mkdir()
    (root / "specs" / "moved.toml").rename(root / "specs" / "a" / "sum.toml")
    spec = root / "specs" / "a" / "sum.toml"
    spec.write_text(spec.read_text() + "[train]\nseed = 9\n")
    assert mtrun(root, "build", "specs/a/sum.toml", "--executor", "inline").code == 0


def test_two_models_of_one_name_are_told_apart(tmp_path: Path) -> None:
    root = project(tmp_path, **SPECS)
    build(root, "mean")
    spec = root / "specs" / "sum.toml"
    spec.write_text(spec.read_text() + "[train]\nseed = 5\n")
    build(root, "sum")
    (found,) = read(root / "results")
    ids = {node.id for one in found.results for node in one.tree.nodes() if node.name == "sum"}
    assert len(ids) == 2
    table = text(root / "results", "json", columns="name,id")
    names = {row["name"] for row in json.loads(table)[0]["rows"] if row["id"] in ids}
    assert names == {f"sum ({id})" for id in ids}


def test_a_node_is_named_as_in_its_spec_under_settings_too(tmp_path: Path) -> None:
    root = project(tmp_path, **SPECS)
    settings = ["train.seed=3"]
    build(root, "mean", settings=settings)
    set_ = [word for one in settings for word in ("--set", one)]
    for name in ("pcgrad", "pcgrad@seed=3"):
        done = mtrun(root, "predict", "specs/mean.toml", *set_, "--node", name, "A film.")
        assert done.code == 0, done.err
        plan = mtrun(root, "build", "specs/mean.toml", *set_, "--force", name, "-n")
        assert plan.code == 0 and "forced" in plan.out, plan.err


def test_a_published_profile_cannot_be_built_over(tmp_path: Path) -> None:
    root = project(tmp_path)
    shutil.copy(root / "specs" / "profiles" / "demo.toml", root / "specs" / "profiles" / "published.toml")
    done = mtrun(root, "build", "specs/sum.toml", "--profile", "published")
    assert done.code == 2 and "published" in done.err and "bug" not in done.err


def test_a_build_of_some_specs_reads_none_of_the_others_where_nothing_changed(tmp_path: Path) -> None:
    root = project(tmp_path, **SPECS)
    build(root, "mean", "deep")
    plan = make_plan(root, [root / "specs" / "mean.toml"], "demo")
    (root / "specs" / "deep.toml").write_text("this is no TOML")
    work = Build(plan, Scheduler(plan.registry, root, Inline(), jobs=1), root / "results")
    assert [event.event for event in work.events() if event.event in ("failed", "rescored")] == []
