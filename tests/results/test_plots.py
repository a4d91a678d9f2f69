"""Pictures show what the results and histories say, and are the same bytes in every process."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from published import EPOCHS, published

from runner.cli.app import cli
from runner.cli.views import graph
from runner.errors import UsageError
from runner.results import plots
from runner.results.profile_results import ProfileResults, gather
from runner.results.result import Result, ResultNode

pytest.importorskip("matplotlib")

ROOT = Path(__file__).parents[2]
NAMES = {"conflict.svg", "honesty-tiny.svg", "costs-tiny.svg", "curves-pcgrad.svg", "curves-sum.svg",
         "curves-rates@lr_scale=2.0.svg", "curves-rates@lr_scale=3.0.svg", "sweep-rates-lr_scale.svg",
         "tree-both.svg", "tree-way.svg"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published(tmp_path_factory.mktemp("published"))


@pytest.fixture
def profile_results(project: Path) -> ProfileResults:
    return gather(project / "results")[0]


def figures(profile_results: ProfileResults, kind: str) -> dict[str, object]:
    import matplotlib

    with matplotlib.rc_context(plots.STYLE):
        return dict(plots.kinds()[kind](profile_results))


def test_each_picture_is_a_sound_svg_that_asks_for_nothing(profile_results: ProfileResults) -> None:
    drawn = dict(plots.drawn(profile_results))
    assert drawn.keys() >= NAMES
    for data in drawn.values():
        root = ET.fromstring(data)
        assert root.tag.endswith("svg")
        assert not [e for e in root.iter() if e.tag.endswith(("image", "script", "foreignObject", "date"))]
        links = {value for e in root.iter() for name, value in e.attrib.items() if name.endswith("href")}
        assert all(link.startswith("#") for link in links)


def test_the_same_bytes_in_every_process(project: Path) -> None:
    code = ("import hashlib, sys; from pathlib import Path; from runner.results.profile_results import gather; "
            "from runner.results.plots "
            "import drawn\nfor name, data in drawn(gather(Path(sys.argv[1]))[0]): "
            "print(name, hashlib.sha256(data).hexdigest())")
    said = [subprocess.run([sys.executable, "-c", code, str(project / "results")], cwd=ROOT, capture_output=True,
                           text=True, check=True, env={**os.environ, "PYTHONHASHSEED": seed}).stdout for seed in "12"]
    assert said[0] == said[1]
    assert said[0].count("\n") >= len(NAMES)


def test_curves_are_the_history(profile_results: ProfileResults) -> None:
    leaf = next(leaf for leaf in profile_results.leaves if leaf.name == "sum")
    history = [json.loads(line) for line in profile_results.runs[leaf.id].read("history.jsonl").splitlines()]
    axes = figures(profile_results, "curves")["curves-sum"].axes
    assert list(axes[0].lines[0].get_ydata()) == [entry["losses"]["sentiment"] for entry in history]
    assert list(axes[2].lines[0].get_ydata()) == [sum(entry["losses"].values()) for entry in history]
    assert list(axes[4].lines[0].get_ydata()) == [entry["dev"]["similarity"] for entry in history]
    assert list(axes[3].lines[1].get_xdata()) == [EPOCHS]  # the ring


def test_a_sweep_has_all_its_points_whatever_they_are_called(profile_results: ProfileResults) -> None:
    axes = figures(profile_results, "sweeps")["sweep-rates-lr_scale"].axes
    by_name = {node.name: node for node in profile_results.nodes.values()}
    points = [by_name[name] for name in ("sum", "rates@lr_scale=2.0", "rates@lr_scale=3.0")]
    for panel, column in zip(axes, ("sentiment", "similarity", "overall"), strict=True):
        line = panel.lines[0]
        assert list(line.get_xdata()) == [1.0, 2.0, 3.0]
        scores = [node.shown()["dev"][column] for node in points]
        assert list(line.get_ydata()) == scores
        bars = panel.collections[0].get_segments()
        for score, node, bar in zip(scores, points, bars, strict=True):
            low, high = profile_results.interval(node.id, column) or (None, None)
            assert low < score < high
            assert [y for _, y in bar] == pytest.approx([low, high])


def of_results(profile_results: ProfileResults, *more: Result) -> ProfileResults:
    """Return the ProfileResults of some more results, in a project without specs."""
    files = {Path(f"{number}.json"): result for number, result in enumerate((*profile_results.results, *more))}
    return ProfileResults(replace(profile_results.source, files=files), profile_results.folder / "nowhere")


def test_a_sweep_has_all_its_points_where_the_specs_are_gone(profile_results: ProfileResults) -> None:
    (one,) = (result for result in profile_results.results if result.tree.name == "sum")
    alias = one.model_copy(update={"tree": one.tree.model_copy(update={"name": "rates@lr_scale=1.0"})})
    alone = of_results(profile_results, alias)
    line = figures(alone, "sweeps")["sweep-rates-lr_scale"].axes[0].lines[0]
    assert list(line.get_xdata()) == [1.0, 2.0, 3.0]


def test_seeds_are_no_axis(profile_results: ProfileResults) -> None:
    new = ("some@seed=1", "some@seed=2")
    names = dict(zip((result.tree.name for result in profile_results.results), new, strict=False))
    named = [result.model_copy(update={"tree": result.tree.model_copy(update={"name": names[result.tree.name]})})
             for result in profile_results.results if result.tree.name in names]
    assert len(named) == 2
    alone = of_results(profile_results, *named)
    assert not any("seed" in name for name in figures(alone, "sweeps"))


def test_a_tree_shows_the_score_that_each_member_is_there_for(profile_results: ProfileResults) -> None:
    tree = next(result.tree for result in profile_results.results if result.tree.name == "way")
    texts = [text.get_text() for text in figures(profile_results, "trees")["tree-way"].axes[0].texts]
    for node, column in ((tree, "overall"), (tree.members[0], "sentiment"), (tree.members[1], "similarity")):
        assert node.name in texts
        assert f"{node.shown()['dev'][column]:.3f}" in texts
    assert "2 not chosen" in texts


def test_honest_and_apparent_scores_are_side_by_side(profile_results: ProfileResults) -> None:
    axes, gaps = figures(profile_results, "honesty")["honesty-tiny"].axes
    apparent, honest = (next(line.get_xdata() for line in axes.lines if line.get_label() == f"dev, {which}")
                        for which in ("apparent", "honest"))
    names = [label.get_text() for label in axes.get_yticklabels()]
    by_name = {node.name: node for node in profile_results.nodes.values()}
    assert len(names) == len(by_name)
    assert list(apparent) == [by_name[name].scores["dev"]["overall"] for name in names]
    assert list(honest) == [by_name[name].honest["overall"] for name in names]
    assert list(honest) == sorted(honest, reverse=True)
    differences = [a - h for a, h in zip(apparent, honest, strict=True)]
    assert [bar.get_width() for bar in gaps.patches] == pytest.approx(differences, abs=1e-5)


def test_conflict_is_the_mean_over_the_epochs(profile_results: ProfileResults) -> None:
    left, right = figures(profile_results, "conflict")["conflict"].axes
    dots = [line.get_xdata()[0] for line in left.lines if line.get_marker() == "o"]
    for leaf, dot in zip(profile_results.leaves, dots, strict=True):
        values = [entry["conflict"]["pairs"]["sentiment/similarity"] for entry in profile_results.history(leaf.id)]
        assert dot == pytest.approx(sum(values) / len(values))
    assert [bar.get_width() for bar in right.patches] == [0.25] * len(profile_results.leaves)


def test_an_ensemble_costs_what_all_its_leaves_cost(profile_results: ProfileResults) -> None:
    axes = figures(profile_results, "costs")["costs-tiny"].axes[0]
    leaves, trees = axes.lines[:2]
    assert set(leaves.get_xdata()) == {20.0}
    assert sorted(trees.get_xdata()) == [60.0, 60.0, 80.0]  # top and way: three rates; both: pcgrad, too


def test_what_only_a_registry_knows_is_left_out_with_a_word(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project / "results", tmp_path / "results")
    profile_results = gather(tmp_path / "results")[0]
    drawn = {name for name, _ in plots.drawn(profile_results)}
    assert drawn == {"costs-tiny.svg", "honesty-tiny.svg", "sweep-rates-lr_scale.svg", "tree-both.svg", "tree-way.svg"}
    assert any("4 of 4 runs are not in the registry" in note for note in profile_results.notes)


def test_a_history_without_conflict_is_told(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile_results = gather(project / "results")[0]
    history = ProfileResults.history
    monkeypatch.setattr(ProfileResults, "history", lambda self, id: [
        {key: value for key, value in entry.items() if key != "conflict"} for entry in history(self, id)])
    assert not figures(profile_results, "conflict")
    assert any("conflict" in note for note in profile_results.notes)


def test_a_hostile_name_stays_in_the_folder(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project / "results", tmp_path / "in" / "results")
    for path in (tmp_path / "in" / "results" / "demo").glob("*.json"):
        path.write_text(path.read_text().replace('"name": "way"', '"name": "../../way $x"'))
    done = CliRunner().invoke(cli, ["plot", str(tmp_path / "in" / "results"), "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert {path.parent for path in tmp_path.rglob("*.svg")} == {tmp_path / "out"}


def test_without_matplotlib_it_is_said_what_to_install(profile_results: ProfileResults,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"mtrun\[plots\]"):
        list(plots.drawn(profile_results))


def test_the_command_writes_beside_the_results(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project / "results", tmp_path / "results")
    done = CliRunner().invoke(cli, ["plot", str(tmp_path / "results"), "--png"])
    assert done.exit_code == 0, done.output
    folder = tmp_path / "results" / "demo" / "pictures"
    assert (folder / "tree-way.png").read_bytes().startswith(b"\x89PNG")
    assert len(done.stdout.splitlines()) == len(list(folder.iterdir()))
    assert hashlib.sha256((folder / "trees.md").read_bytes()).digest() == hashlib.sha256(
        graph.trees(gather(tmp_path / "results")[0].results)).digest()


def test_several_profiles_in_one_folder_are_refused(project: Path, tmp_path: Path) -> None:
    for profile in ("one", "two"):
        shutil.copytree(project / "results" / "demo", tmp_path / "results" / profile)
    done = CliRunner().invoke(cli, ["plot", str(tmp_path / "results"), "-o", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert str(tmp_path / "results" / "one") in "".join(done.output.split())
    assert not (tmp_path / "out").exists()


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no results"):
        gather(tmp_path)


def test_mermaid_draws_each_node_once_and_chosen_members_only(profile_results: ProfileResults) -> None:
    tree = next(result.tree for result in profile_results.results if result.tree.name == "both")
    text = graph.result_mermaid(tree)
    drawn = dict(re.findall(r'^    n(\w+)[\[(]+"([^"]*)"', text, re.M))

    def used(node: ResultNode) -> set[tuple[str, str]]:
        places = node.chosen if node.chosen is not None else range(len(node.members))
        found = {(node.id, node.members[place].id) for place in places}
        return found.union(*(used(node.members[place]) for place in places))

    edges = set(re.findall(r"^    n(\w+) --> n(\w+)$", text, re.M))
    assert edges == used(tree)
    assert drawn.keys() == {tree.id} | {below for _, below in edges}
    assert drawn[tree.id] == f"both<br/><b>{tree.shown()['dev']['overall']:.3f}</b>"


def test_all_below_a_route_have_the_scores_of_the_task_that_it_is_for() -> None:
    from runner.results.plots.trees import _placed

    def node(name: str, sentiment: float | None, overall: float | None, *members: ResultNode, **more: object
             ) -> ResultNode:
        scores = {"dev": {"sentiment": sentiment, "overall": overall}}
        identity = hashlib.sha256(name.encode()).hexdigest()[:12]
        return ResultNode(name=name, id=identity, kind="ensemble" if members else "leaf", what="", scores=scores,
                          members=members, **more)

    leaves = node("some", 0.4, None), node("all", 0.3, 0.7), node("pairs", None, None)
    route = node("route", 0.5, 0.8, node("mean", 0.5, 0.6, *leaves), roles=("sentiment",))
    top = _placed(node("top", 0.5, 0.9, route, leaves[1]), "", 0, iter(range(9)), "overall")
    assert [(box.text, box.score) for box in top.all()] == [
        ("top", 0.9), ("route", 0.8), ("mean", 0.5), ("some", 0.4), ("all", 0.3), ("1 without sentiment", None),
        ("all", 0.7)]
