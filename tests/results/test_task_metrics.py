"""Results of tasks with several metrics: honest scores at chance, columns, signs, weights, what cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filed import average, built, data_of, made, said
from folders import text
from members import handles, ids
from projects import project, write

from runner.errors import RegistryError
from runner.parts.ensembles.best import Best
from runner.parts.ensembles.greedy import Greedy
from runner.results.crossfit import CrossFit, FittedNode
from runner.results.result import Result
from runner.results.significance import ScoredSystem, evidence
from runner.tasks.data import Data, Examples, Task
from runner.tasks.metrics import measures, score_split
from runner.tasks.predictions import Output, Predictions, join_epochs

CHANCE = [("binary", "f1", 0.5), ("binary", "mcc", 0.0), ("regression", "spearman", 0.0), ("binary", "auroc", 0.5),
          ("regression", "rmse", None)]
"""Kind, metric, and its value for what knows nothing; None: that of the members."""


def noise(kind: str, metric: str, seed: int, members: int = 12, n: int = 100) -> tuple[Data, list[Predictions]]:
    """Return a task whose labels its members know nothing of."""
    rng = np.random.default_rng(seed)
    task = Task(title="T", kind=kind, high=5.0, metrics=(metric,))  # type: ignore[arg-type]
    labels = rng.integers(0, 2, n).astype(np.float64) if kind == "binary" else rng.standard_normal(n)
    examples = Examples(tuple(f"{seed}-{i}" for i in range(n)), ("",) * n, labels=labels)
    outputs = [Output(examples.ids, rng.standard_normal((n, 1)).astype(np.float32)) for _ in range(members)]
    return Data({"t": task}, {"t": {"dev": examples}}), [Predictions({"dev": {"t": output}}) for output in outputs]


@pytest.mark.parametrize(("kind", "metric", "chance"), CHANCE)
@pytest.mark.parametrize("node", [
    Best(members=handles(12)), Greedy(members=handles(12), bags=1, fraction=1.0, rounds=3)], ids=lambda node: node.type)
def test_what_is_chosen_from_noise_is_honestly_at_chance(tmp_path: Path, node: Any, kind: str, metric: str,
                                                         chance: float | None) -> None:
    honest, apparent, alone = [], [], []
    for trial in range(10):
        data, members = noise(kind, metric, trial)
        crossfit = CrossFit(data, f"{trial:064}", tmp_path / str(trial))
        for id, member in zip(ids(12), members, strict=True):
            crossfit.add_leaf(id, member, None, chose=False)
        whole = node.combine(members, data, ids(12))
        crossfit.add_tree("tree", whole, node, ids(12))
        found = crossfit.honest("tree")
        assert found
        honest.append(found["t"] or 0.0)
        apparent.append(score_split(whole, data, "dev")["t"] or 0.0)
        alone += [score_split(member, data, "dev")["t"] or 0.0 for member in members]
    sign = measures(data.tasks)["t"].metric.sign
    optimism = sign * (np.mean(apparent) - np.mean(honest))
    assert optimism > 0.03, "the choice looks better than it is"
    if chance is not None:
        assert abs(np.mean(honest) - chance) < 4 * np.std(honest, ddof=1) / len(honest) ** 0.5
    elif node.type == "best":  # a mean of members has a smaller error than one of them
        assert abs(np.mean(honest) - np.mean(alone)) < 4 * np.std(honest, ddof=1) / len(honest) ** 0.5


class Kept:
    """A run with its epochs, as cross-fitting sees it."""

    def __init__(self, epochs: list[Predictions], **train: str) -> None:
        self.said = epochs
        self.manifest = {"sha256": "1", "spec": {"train": {"select": "best", **train}, "heads": {"t": {}}}}

    def has_epochs(self) -> bool:
        return True

    def epochs(self) -> Predictions:
        return join_epochs(self.said)


@pytest.mark.parametrize("metric", ["brier", "accuracy"])
def test_epochs_are_chosen_again_by_the_metric_that_chose_them(tmp_path: Path, metric: str) -> None:
    """The second epoch has the better accuracy, the first the better probabilities."""
    data, _ = noise("binary", "accuracy", 0)
    data = Data({"t": data.tasks["t"].model_copy(update={"metrics": ("accuracy", "brier")})}, data.splits)
    labels = data.splits["t"]["dev"].labels
    assert labels is not None
    mild = np.where(np.arange(100) % 2 == 0, -0.1, 1.5) * (2 * labels - 1)
    sure = np.where(np.arange(100) % 5 == 0, -30.0, 30.0) * (2 * labels - 1)
    epochs = [Predictions({"dev": {"t": Output(data.splits["t"]["dev"].ids, array[:, None].astype(np.float32))}})
              for array in (mild, sure)]
    crossfit = CrossFit(data, "1" * 64, tmp_path)
    run = Kept(epochs, select_by="t.brier") if metric == "brier" else Kept(epochs)
    best = 0 if metric == "brier" else 1
    crossfit.nodes["leaf"] = FittedNode(epochs[best], "1", run)  # type: ignore[arg-type]
    assert crossfit.honest("leaf") == score_split(epochs[best], data, "dev"), "every fold chooses the same epoch"


# Published results ---------------------------------------------------------------------------------------------------

SUITE = """kind = "suite"
type = "files"
folder = "rows"
[tasks.topic]
title = "Topic"
kind = "classification"
classes = 3
metrics = ["macro_f1", "ece"]
columns = ["text"]
label = "label"
train = "train.csv"
dev = "dev.csv"
[tasks.length]
title = "Length"
kind = "regression"
high = 10.0
metrics = ["rmse", "spearman"]
counts = 3.0
columns = ["text"]
label = "score"
train = "train.csv"
dev = "dev.csv"
[tasks.aside]
title = "Aside"
kind = "binary"
counts = false
columns = ["text"]
label = "binary"
train = "train.csv"
dev = "dev.csv"
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a project with a suite of three tasks, two predictions files of different skill, and their mean."""
    root = project(tmp_path)
    rng = np.random.default_rng(2)
    rows = {split: "id,text,label,score,binary\n" + "".join(
        f"{i},some words {split} {i},{rng.integers(3)},{rng.uniform(0, 10):.2f},{rng.integers(2)}\n"
        for i in range(90)) for split in ("train", "dev")}
    write(root, {f"rows/{split}.csv": content for split, content in rows.items()})
    (root / "specs" / "suites" / "tiny.toml").write_text(SUITE)
    data = data_of(root)
    models = {"weak": said(data, 0.5, 1, splits=("dev",)), "strong": said(data, 2.0, 2, splits=("dev",))}
    made(root, models, mean=average("weak", "strong"), one=average("weak"), two=average("strong"))
    built(root, "mean", "one", "two")
    return root


def test_a_table_has_all_metrics_and_marks_the_lowest_error(root: Path) -> None:
    shown = text(root / "results" / "demo", style="json")
    rows = {row["name"]: row for row in json.loads(shown)[0]["rows"]}
    columns = ("topic", "topic.ece", "length", "length.spearman", "aside", "overall")
    assert all(isinstance(rows["mean"][column], float) for column in columns)
    ranges = [rows["two"][f"{column}.{end}"] for column in columns for end in ("low", "high")]
    assert all(isinstance(value, float) for value in ranges)
    markdown = text(root / "results" / "demo").splitlines()
    title = next(line for line in markdown if line.startswith("| name"))
    cells = [cell.strip() for cell in title.split("|")]
    assert cells[2:7] == ["Topic macro F1", "Topic ECE", "Length RMSE", "Length Spearman rho", "Aside"]
    best = min(rows, key=lambda name: rows[name]["length"])
    assert any(line.startswith(f"| {best} ") and f"**{rows[best]['length']:.3f}**" in line for line in markdown)
    assert "overall: the mean of Topic, Length times 3; without Aside" in markdown
    by_error = text(root / "results" / "demo", style="csv", columns="name", sort="length").splitlines()[1:]
    assert [line.split(",")[-1] for line in by_error] == sorted(rows, key=lambda name: rows[name]["length"])


def test_the_overall_is_the_weighted_mean_of_what_counts(root: Path) -> None:
    result = Result.from_json((root / "results" / "demo" / "mean.json").read_bytes(), "mean")
    scores = result.tree.scores["dev"]
    wanted = (scores["topic"] + 3 * (1 - scores["length"] / 10)) / 4  # type: ignore[operator]
    assert scores["overall"] == pytest.approx(wanted, abs=1e-6)
    assert [column.counts for column in result.tasks] == [1.0, 3.0, 0.0]


@pytest.mark.parametrize(("column", "value"), [("topic", 1.2), ("length", -0.1), ("length.spearman", -1.5),
                                                ("overall", 1.01)])
def test_a_score_that_no_metric_can_have_is_refused(root: Path, column: str, value: float) -> None:
    content = json.loads((root / "results" / "demo" / "mean.json").read_text())
    content["tree"]["scores"]["dev"][column] = value
    with pytest.raises(RegistryError) as raised:
        Result.from_json(json.dumps(content).encode(), "mean.json")
    assert f"cannot be one of `{column}`" in raised.value.render()


def test_a_metric_of_another_kind_is_an_error_of_the_suite(root: Path, capsys: pytest.CaptureFixture[str],
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    from runner.cli.app import main

    (root / "specs" / "suites" / "tiny.toml").write_text(SUITE.replace('"rmse", "spearman"', '"rmse", "f1"'))
    monkeypatch.chdir(root)
    with pytest.raises(SystemExit):
        main(["check", "specs/mean.toml"])
    said = capsys.readouterr().err
    assert "`f1` is no metric of a regression task; there are: pearson, spearman, pearson_spearman, rmse" in said
    assert "tiny.toml:15" in said


def test_perfect_systems_have_intervals_of_some_width() -> None:
    """Wilson's for what is all right; the draws of a bootstrap are then all alike."""
    labels = np.array([0.0, 1.0] * 20 + [1.0] * 10)
    task = Task(title="T", kind="binary", metrics=("accuracy", "f1", "brier"))
    examples = Examples(tuple(map(str, range(50))), ("",) * 50, labels=labels)
    data = Data({"t": task}, {"t": {"dev": examples}})
    right = (4 * labels - 2)[:, None].astype(np.float32)
    systems = {name: Predictions({"dev": {"t": Output(examples.ids, sign * right)}})
               for name, sign in (("right", 1), ("wrong", -1))}
    found = evidence(data, "s", {name: ScoredSystem(one, {"dev": score_split(one, data, "dev")})
                                 for name, one in systems.items()})
    z = 1.959964
    assert found.interval("right", "dev", "t", 1.0) == (round(50 / (50 + z * z), 4), 1.0)
    assert found.interval("right", "dev", "t.f1", 1.0) == (round(20 / (20 + z * z), 4), 1.0), "20 are no"
    assert found.interval("wrong", "dev", "t", 0.0) == (0.0, round(z * z / (50 + z * z), 4))
    assert found.interval("right", "dev", "overall", 1.0) == found.interval("right", "dev", "t", 1.0)
    error = score_split(systems["right"], data, "dev")["t.brier"]
    low, high = found.interval("right", "dev", "t.brier", error) or (0, 1)
    assert low == high, "all probabilities are alike: what the examples tell of this error is certain"
