"""The file of intervals and p-values: what is in it, how it is kept up to date, and what a table makes of it."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from filed import average, built, made, said, suited
from folders import text, written
from scipy import stats

from runner.results import significance
from runner.results.costs import spent
from runner.results.result import SIGNIFICANCE
from runner.results.result_folder import read_profile
from runner.results.significance import Evidence, PredictionsCache, ScoredSystem, Significance, evidence
from runner.tasks import bootstrap
from runner.tasks.data import Data
from runner.tasks.metrics import leading, weighted

COLUMNS = ("sentiment", "paraphrase", "similarity", "overall")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a project of three models and four trees of them, nothing of it built."""
    data = suited(tmp_path)
    skills = {"good": 2.0, "fair": 1.9, "poor": 0.3}
    models = {name: said(data, skill, seed) for seed, (name, skill) in enumerate(skills.items())}
    models["poor"] = said(data, 0.3, 9, tasks=("sentiment", "similarity"))
    return made(tmp_path, models, both=average("good", "fair"), worse=average("fair", "poor"), lone=average("poor"),
                chosen='type = "best"\nby = "similarity"\nmembers = ["good.safetensors", "fair.safetensors"]')


def file_of(root: Path) -> Path:
    return root / "results" / "demo" / SIGNIFICANCE


def evidence_of(root: Path) -> Evidence:
    (found,) = Significance.read(root / "results" / "demo").suites.values()
    return found


def ids(root: Path) -> dict[str, str]:
    results = read_profile(root / "results" / "demo").results
    return {node.name: node.id for result in results for node in result.tree.nodes()}


# -------------------------------------------------------------------------------------------------- what is in the file

def test_the_numbers_are_those_of_the_tests(tmp_path: Path) -> None:
    data = suited(tmp_path)
    models = {"a": said(data, 1.0, 1), "b": said(data, 1.3, 2)}
    sha256 = data.sha256()
    scores = {id: {"dev": leaderboards_scores(data, id, models)} for id in models}
    found = evidence(data, sha256, {id: ScoredSystem(models[id], scores[id]) for id in models})
    (pair,) = found.pairs.values()
    right = {}
    draws = {}
    for name, task in data.tasks.items():
        examples = data.splits[name]["dev"]
        assert examples.labels is not None
        of_task = leading(task)
        right[name] = np.stack([of_task.outcomes(task, models[id].outputs["dev"][name].scores, examples.labels)
                                for id in models], axis=1)
        seed = bootstrap.seed(sha256, "dev", name)
        draws[name] = bootstrap.resampled(task, of_task, right[name], examples.labels, seed)
    draws["overall"] = weighted(draws, data.tasks)
    for (at, id), (place, column) in itertools.product(enumerate(models), enumerate(found.columns)):
        low, high = np.quantile(draws[column][:, at], [0.025, 0.975])
        score, *ends = found.systems[id]["dev"][place] or ()
        assert score == scores[id]["dev"][column] and ends == pytest.approx([low, high], abs=6e-5)
    only = [int((right["sentiment"][:, i] > right["sentiment"][:, 1 - i]).sum()) for i in (0, 1)]
    assert pair["dev"][0] == pytest.approx(stats.binomtest(only[0], sum(only)).pvalue, rel=1e-3)
    seen = scores["a"]["dev"]["overall"] - scores["b"]["dev"]["overall"]
    far = np.abs(draws["overall"][:, 0] - draws["overall"][:, 1] - seen) >= abs(seen)
    assert pair["dev"][3] == pytest.approx((1 + far.sum()) / 2001, rel=1e-3)


def leaderboards_scores(data: Data, id: str, models: dict) -> dict[str, float]:
    from runner.tasks.metrics import score_split

    found = score_split(models[id], data, "dev")
    return {column: score for column, score in found.items() if score is not None}


def test_an_interval_is_around_the_honest_score_and_tests_compare_honest_scores(tmp_path: Path) -> None:
    data = suited(tmp_path)
    models = {"a": said(data, 1.0, 1), "b": said(data, 1.3, 2)}
    scores = {id: leaderboards_scores(data, id, models) for id in models}
    plain, = evidence(data, "s", {id: ScoredSystem(models[id], {"dev": scores[id]}) for id in models}).pairs.values()
    honest = {id: {column: value - (0.03 if id == "b" else 0) for column, value in scores[id].items()} for id in models}
    found = evidence(data, "s", {id: ScoredSystem(models[id], {"dev": honest[id]}) for id in models})
    same = evidence(data, "s", {id: ScoredSystem(models[id], {"dev": scores[id]}) for id in models})
    for place, column in enumerate(found.columns):
        moved, whole = found.systems["b"]["dev"][place], same.systems["b"]["dev"][place]
        assert moved and whole and moved == pytest.approx([x - 0.03 for x in whole], abs=1e-4), column
    (pair,) = found.pairs.values()
    assert all(p > q for p, q in zip(pair["dev"], plain["dev"], strict=True) if p is not None and q is not None)


def test_mcnemar_of_honest_scores_shares_out_what_differs(tmp_path: Path) -> None:
    right = np.repeat([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], [50, 8, 22, 20], axis=0)
    accuracies = right.mean(axis=0)
    assert bootstrap.mcnemar(right, accuracies)[0, 1] == pytest.approx(stats.binomtest(8, 30).pvalue)
    honest = accuracies - np.array([0.0, 0.04])  # 4 of 100 examples less: 10 and 20 in place of 8 and 22
    assert bootstrap.mcnemar(right, honest)[0, 1] == pytest.approx(stats.binomtest(10, 30).pvalue)
    odd = accuracies - np.array([0.0, 0.05])  # 10.5 and 19.5: in favour of equality
    assert bootstrap.mcnemar(right, odd)[0, 1] == pytest.approx(stats.binomtest(11, 30).pvalue)
    turned = accuracies - np.array([0.0, 0.9])  # more than all that differ
    assert bootstrap.mcnemar(right, turned)[0, 1] == pytest.approx(stats.binomtest(0, 30).pvalue)


def test_what_a_system_lacks_is_left_out(root: Path) -> None:
    built(root, "both", "lone")
    found, named = evidence_of(root), ids(root)
    assert [entry is None for entry in found.systems[named["lone"]]["dev"]] == [False, True, False, True]
    p = [found.p(named["lone"], named["both"], "dev", column) for column in COLUMNS]
    assert p[0] is not None and p[1] is None and p[3] is None
    assert found.interval(named["lone"], "dev", "overall", None) is None


# ---------------------------------------------------------------------------------------------------- kept up to date

def test_it_is_the_same_file_however_the_specs_are_built(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other") / "copy"
    shutil.copytree(root, other)
    built(root, "both", "worse", "lone", "chosen")
    whole = file_of(root).read_bytes()
    for spec in ("chosen", "lone", "both", "worse"):
        built(other, spec)
    assert file_of(other).read_bytes() == whole
    assert whole.count(b"\n") > len(evidence_of(root).pairs) >= 6


def test_another_build_changes_nothing(root: Path) -> None:
    built(root, "both", "worse")
    before = file_of(root).stat().st_mtime_ns
    built(root, "both")
    assert file_of(root).stat().st_mtime_ns == before


def test_what_is_no_longer_published_is_dropped_and_so_are_its_predictions(root: Path) -> None:
    built(root, "both", "worse")
    named = ids(root)
    shelf = root / "registry" / ".cache" / "predictions" / "demo"
    assert {path.stem for path in shelf.iterdir()} == set(named.values())
    (root / "results" / "demo" / "worse.json").unlink()
    built(root, "both")
    assert set(evidence_of(root).systems) == {named[name] for name in ("both", "good", "fair")}
    assert named["worse"] not in {path.stem for path in shelf.iterdir()}


def test_predictions_that_are_gone_leave_pairs_untested_and_the_table_says_so(root: Path) -> None:
    built(root, "both")
    shutil.rmtree(root / "registry" / ".cache")
    built(root, "worse")
    named, found = ids(root), evidence_of(root)
    assert found.p(named["both"], named["worse"], "dev", "sentiment") is None
    assert found.p(named["fair"], named["worse"], "dev", "sentiment") is not None
    assert "not tested against the best: " in text(root / "results")
    built(root, "both")
    assert evidence_of(root).p(named["both"], named["worse"], "dev", "sentiment") is not None
    assert "not tested" not in text(root / "results")


def test_of_very_many_systems_the_best_are_tested(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built(root, "both", "worse", "chosen")
    whole = evidence_of(root)
    monkeypatch.setattr(significance, "MOST", 3)
    for name in ("chosen", "both"):
        built(root, name)
    few, best = evidence_of(root), rows(root, "overall")[:3]
    assert few.systems == whole.systems and len(few.pairs) == 3
    assert few.pairs.items() <= whole.pairs.items()
    assert {id for pair in few.pairs for id in pair.split()} == {row["id"] for row in best}


def test_evidence_of_other_scores_is_not_shown_and_is_made_again(root: Path) -> None:
    built(root, "both")
    named = ids(root)
    right = file_of(root).read_bytes()
    wrong = json.loads(right)
    (suite,) = wrong["suites"].values()
    suite["systems"][named["both"]]["dev"][0][0] = 0.123
    file_of(root).write_text(json.dumps(wrong))
    (row,) = [row for row in rows(root, "sentiment.low") if row["name"] == "both"]
    assert row["sentiment.low"] is None
    built(root, "both")
    assert file_of(root).read_bytes() == right


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 2}',
                                  '{"suites": {"a": {"systems": {"x": {"dev": [[2, 0, 1]]}}}}}'])
def test_a_damaged_file_is_an_error_that_names_it_until_the_next_build(root: Path, content: str) -> None:
    built(root, "both")
    right = file_of(root).read_bytes()
    file_of(root).write_text(content)
    (problem,) = read_profile(root / "results" / "demo").problems
    assert SIGNIFICANCE in problem.render() and "the next build" in problem.render()
    assert "both" in text(root / "results"), "scores are shown all the same"
    built(root, "both")
    assert file_of(root).read_bytes() == right


def test_a_damaged_shelf_is_no_error(tmp_path: Path) -> None:
    data = suited(tmp_path)
    shelf = PredictionsCache(tmp_path / "shelf")
    shelf.keep("a", said(data, 1.0, 1))
    kept = shelf.find("a")
    assert kept and kept.to_bytes() == said(data, 1.0, 1).to_bytes()
    (tmp_path / "shelf" / "a.safetensors").write_bytes(b"x")
    assert shelf.find("a") is None and shelf.find("b") is None


def test_a_file_that_another_build_deletes_meanwhile_is_written_again(tmp_path: Path,
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    data, shelf, read = suited(tmp_path), PredictionsCache(tmp_path / "shelf"), Path.read_bytes
    shelf.keep("a", said(data, 1.0, 1))

    def slow(path: Path) -> bytes:
        monkeypatch.undo()
        PredictionsCache(tmp_path / "shelf").remove("a")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", slow)
    shelf.keep("a", said(data, 1.0, 1))
    assert shelf.find("a")


# ----------------------------------------------------------------------------------------------------------- the table

def rows(root: Path, columns: str, **options: str) -> list[dict]:
    (sheet,) = json.loads(text(root / "results", "json", columns=f"name,id,{columns}", **options))
    found: list[dict] = sheet["rows"]
    return found


def test_a_mark_says_that_holms_test_against_the_best_did_not_reject(root: Path) -> None:
    built(root, "both", "worse", "lone", "chosen")
    found = evidence_of(root)
    for column in COLUMNS:
        listed = [row for row in rows(root, f"{column},{column}.tied,{column}.p", sort=column) if row[column]]
        best, *others = listed
        assert best[f"{column}.tied"] is None and best[column] == max(row[column] for row in listed)
        raw = [found.p(best["id"], row["id"], "dev", column) for row in others]
        adjusted = bootstrap.holm([p for p in raw if p is not None])
        assert [row[f"{column}.p"] for row in others] == pytest.approx(adjusted, rel=1e-3)
        assert [row[f"{column}.tied"] for row in others] == [p > 0.05 for p in adjusted]
    (sheet,) = json.loads(text(root / "results", "json", columns="name,paraphrase,paraphrase.tied"))
    tied = {row["name"] for row in sheet["rows"] if row["paraphrase.tied"] and row["paraphrase"] < best_of(sheet)}
    table = text(root / "results", "plain", columns="name,paraphrase").split("\n\n")[1]
    assert tied and {line.split()[0] for line in table.splitlines() if "≈" in line} == tied


def best_of(sheet: dict) -> float:
    return max(row["paraphrase"] or 0 for row in sheet["rows"]) - 0.0005


def test_a_smaller_group_corrects_for_fewer_tests(root: Path) -> None:
    built(root, "both", "worse", "lone", "chosen")
    whole = {row["name"]: row["overall.p"] for row in rows(root, "overall.p")}
    few = {row["name"]: row["overall.p"] for row in rows(root, "overall.p", group="both worse")}
    assert set(few) == {"both", "worse"} and few["worse"] <= whole["worse"]
    assert few["worse"] == evidence_of(root).p(*(ids(root)[name] for name in few), "dev", "overall")


def test_a_table_needs_no_registry_no_data_no_torch(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    built(root, "both", "worse")
    expected = text(root / "results")
    clone = tmp_path_factory.mktemp("clone")
    shutil.copytree(root / "results", clone / "results")
    code = ("import sys; from runner.cli import cli; cli.main(['table'], standalone_mode=False); "
            "print({'torch', 'scipy', 'pandas', 'sklearn'} & set(sys.modules))")
    done = subprocess.run([sys.executable, "-c", code], cwd=clone, capture_output=True, text=True)
    assert done.stdout == f"{expected}set()\n", done.stderr
    page = (clone / "results" / "demo" / "leaderboard.md").read_bytes()
    written(root / "results")
    assert (root / "results" / "demo" / "leaderboard.md").read_bytes() == page


def test_a_build_that_cannot_write_it_says_so(root: Path) -> None:
    file_of(root).mkdir(parents=True)
    failed = [event for event in built(root, "both") if event.event == "failed"]
    assert [event.name for event in failed] == ["intervals and costs"]
    assert SIGNIFICANCE in failed[0].values["problems"][0]
    assert (root / "results" / "demo" / "both.json").is_file()




def test_what_soups_and_students_are_made_of_costs_training_once_but_no_inference() -> None:
    costs = {"soup": {"seconds": 1.0, "inference": 0.5, "made_of": ["a", "b"]},
             "a": {"seconds": 10.0, "inference": 0.5}, "b": {"seconds": 20.0, "inference": 0.5},
             "student": {"seconds": 2.0, "made_of": ["soup", "gone"]}}
    assert spent(costs, ["soup"], "seconds") == 31
    assert spent(costs, ["soup", "a", "soup"], "seconds") == 31
    assert spent(costs, ["soup", "a"], "inference") == 1
    assert spent(costs, ["student"], "seconds") is None
    assert spent(costs, [], "seconds") is None
