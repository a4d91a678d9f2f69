"""Honest scores: at chance where members are noise, apparent where nothing changes, one definition by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_data import made_data, skilled
from members import TASKS, handles, ids

from runner.parts.ensembles import Ensemble
from runner.parts.ensembles.average import Average
from runner.parts.ensembles.best import Best
from runner.parts.ensembles.fitted import Fitted
from runner.parts.ensembles.greedy import Greedy
from runner.parts.ensembles.route import Route
from runner.parts.ensembles.stack import Stack
from runner.results.crossfit import CrossFit
from runner.tasks.data import Data, Examples
from runner.tasks.folds import FOLDS, REPEATS, refits
from runner.tasks.metrics import overall, score_split
from runner.tasks.predictions import Output, Predictions, join_epochs

DATA = made_data(n=101)
SUITE = "5" * 64


@dataclass(frozen=True)
class Kept:
    """A run that kept its epochs, or did not, as cross-fitting sees it."""

    manifest: dict[str, Any]
    said: Predictions | None

    def has_epochs(self) -> bool:
        return self.said is not None

    def epochs(self) -> Predictions:
        assert self.said
        return self.said


def kept(epochs: Sequence[Predictions] | None, key: str = "1") -> Kept:
    spec = {"train": {"select": "best"}, "heads": {task: {} for task in TASKS}}
    return Kept({"sha256": key, "spec": spec}, join_epochs([only_dev(e) for e in epochs]) if epochs else None)


def only_dev(predictions: Predictions) -> Predictions:
    return Predictions({"dev": predictions.outputs["dev"]})


def crossfit(folder: Path, members: Sequence[Predictions], data: Data = DATA) -> CrossFit:
    """Return the cross-fitting of fixed members."""
    made = CrossFit(data, SUITE, folder)
    for name, member in zip(ids(len(members)), members, strict=True):
        made.add_leaf(name, member, None, chose=False)
    return made


def added(made: CrossFit, node: Ensemble, members: Sequence[str], name: str = "tree") -> dict[str, float | None] | None:
    """Add an ensemble and return its honest scores."""
    below = [made.nodes[member].predictions for member in members]
    made.add_tree(name, node.combine(below, made.data, members), node, members)
    return made.honest(name)


# --------------------------------------------------------------------------------------------------------------- folds

def test_each_repeat_deals_every_row_into_one_fold() -> None:
    made = list(refits(DATA, SUITE))
    assert len(made) == FOLDS * REPEATS
    for task in TASKS:
        folds = [refit.rows["test"][task] for refit in made]
        for repeat in range(REPEATS):
            dealt = folds[repeat * FOLDS:(repeat + 1) * FOLDS]
            assert sorted(np.concatenate(dealt)) == list(range(101))
            assert {len(fold) for fold in dealt} == {20, 21}
        for refit in made:
            assert not set(refit.rows["test"][task]) & set(refit.rows["dev"][task])
            assert refit.data.splits[task]["dev"].ids == tuple(
                DATA.splits[task]["dev"].ids[row] for row in refit.rows["dev"][task])
    assert len({tuple(refit.rows["test"]["sentiment"]) for refit in made}) == len(made)  # repeats differ
    assert not np.array_equal(made[0].rows["test"]["sentiment"], made[0].rows["test"]["paraphrase"])


def test_folds_follow_the_ids_and_the_suite_not_the_rows() -> None:
    turned = {task: {"dev": Examples(by["dev"].ids[::-1], (), (), by["dev"].labels[::-1])}
              for task, by in DATA.splits.items()}
    for one, other in zip(refits(DATA, SUITE), refits(Data(TASKS, turned), SUITE), strict=True):
        assert set(one.data.splits["sentiment"]["test"].ids) == set(other.data.splits["sentiment"]["test"].ids)
    first, other = next(refits(DATA, SUITE)), next(refits(DATA, "6" * 64))
    assert first.data.splits["sentiment"]["test"].ids != other.data.splits["sentiment"]["test"].ids


# ------------------------------------------------------------------------------------------------------ the definition

def test_an_accuracy_is_that_of_the_cross_fitted_rows_together(tmp_path: Path) -> None:
    """Honest accuracy, by hand: fit on the other folds, count right answers on the fold."""
    members = [skilled(seed, 0.1, DATA) for seed in range(8)]
    node = Greedy(members=handles(8), bags=1, fraction=1.0, rounds=5)
    honest = added(crossfit(tmp_path, members), node, ids(8))
    assert honest
    for task in ("sentiment", "paraphrase"):
        right = 0
        for refit in refits(DATA, SUITE):
            parts = [refit.restricted(m, DATA) for m in members]
            scores = node.combine(parts, refit.data, ids(8)).outputs["test"][task].scores
            labels = refit.data.splits[task]["test"].labels
            right += int(((scores.argmax(1) if task == "sentiment" else scores[:, 0] > 0) == labels).sum())
        assert honest[task] == pytest.approx(right / (101 * REPEATS), abs=2e-6)
    assert honest["overall"] == pytest.approx(overall(honest, TASKS), abs=1e-6)
    assert honest != score_split(node.combine(members, DATA, ids(8)), DATA, "dev")


def test_where_the_choice_never_changes_honest_is_apparent(tmp_path: Path) -> None:
    members = [skilled(1, 0.0, DATA), skilled(2, 3.0, DATA), skilled(3, 0.0, DATA)]  # one is far better
    made = crossfit(tmp_path, members)
    for node in (Best(members=handles(3)), Route(members=handles(3))):
        honest = added(made, node, ids(3), node.type)
        assert honest == score_split(members[1], DATA, "dev")


def test_nothing_chosen_is_no_honest_score_and_a_choice_below_is_one(tmp_path: Path) -> None:
    made = crossfit(tmp_path, [skilled(seed, 0.2, DATA) for seed in range(6)])
    assert made.honest(ids(1)[0]) is None
    assert added(made, Average(members=handles(6)), ids(6), "mean") is None
    assert added(made, Best(members=handles(6)), ids(6), "best")
    assert added(made, Average(members=handles(2)), ["mean", "best"], "top")
    alone = added(made, Average(members=handles(1)), ["best"], "alone")
    assert alone == made.honest("best")


def test_nested_choices_are_made_again_together(tmp_path: Path) -> None:
    """A choice among choices: fitting the inner ones on all of dev would leave their optimism in."""
    rng, inside, together = np.random.default_rng(0), [], []
    for trial in range(12):
        data = made_data(trial, 100)
        made = crossfit(tmp_path / str(trial), [skilled(int(s), 0.0, data) for s in rng.integers(0, 2**31, 12)], data)
        parts = [ids(12)[i:i + 4] for i in (0, 4, 8)]
        for number, part in enumerate(parts):
            added(made, Best(members=handles(4), by="sentiment"), part, f"part{number}")
        honest = added(made, Best(members=handles(3), by="sentiment"), ["part0", "part1", "part2"])
        flat = crossfit(tmp_path / f"{trial}f", [made.nodes[f"part{n}"].predictions for n in range(3)], data)
        kept_inside = added(flat, Best(members=handles(3), by="sentiment"), ids(3))
        assert honest and kept_inside
        together.append(honest["sentiment"] or 0)
        inside.append(kept_inside["sentiment"] or 0)
    assert np.mean(together) < 0.2 + 0.02 < np.mean(inside)


# --------------------------------------------------------------------------------------------------------------- noise

NOISY = {"best": Best(members=handles(20)), "route": Route(members=handles(20)), "fitted": Fitted(members=handles(20)),
         "greedy": Greedy(members=handles(20), bags=2, rounds=8), "stack": Stack(members=handles(20), penalty=10.0)}
TRIALS = 10
TOLERANCE = 4 * 0.03 / TRIALS**0.5
"""Four standard errors: over 385 trials of these nodes an honest overall had a standard deviation of 0.02 to 0.03."""


@pytest.mark.parametrize("name", NOISY)
def test_on_noise_apparent_is_above_chance_and_honest_at_chance(name: str, tmp_path: Path) -> None:
    """Mean scores over trials; honest is nearer to chance than to apparent."""
    rng, apparent, honest = np.random.default_rng(7), [], []
    for trial in range(TRIALS):
        data = made_data(1000 + trial, 120)
        members = [skilled(int(s), 0.0, data) for s in rng.integers(0, 2**31, 20)]
        made = crossfit(tmp_path / str(trial), members, data)
        scores = added(made, NOISY[name], ids(20))
        assert scores
        honest.append(scores["overall"])
        apparent.append(score_split(made.nodes["tree"].predictions, data, "dev")["overall"])
    chance = np.mean([0.2, 0.5, 0.5])  # five classes, two, and r = 0
    assert abs(np.mean(honest) - chance) < TOLERANCE
    assert np.mean(apparent) > chance + 0.02 and np.mean(apparent) - np.mean(honest) > abs(np.mean(honest) - chance)


# -------------------------------------------------------------------------------------------------------------- epochs

def test_the_choice_of_an_epoch_is_made_again(tmp_path: Path) -> None:
    """Equal epochs of noise: the best looks good, and is not."""
    rng, apparent, honest = np.random.default_rng(3), [], []
    for trial in range(12):
        data = made_data(trial, 100)
        epochs = [skilled(int(s), 0.0, data) for s in rng.integers(0, 2**31, 10)]
        best = max(epochs, key=lambda e: score_split(e, data, "dev")["overall"] or 0)
        made = CrossFit(data, SUITE, tmp_path / str(trial))
        made.add_leaf("leaf", best, kept(epochs), chose=True)  # type: ignore[arg-type]
        scores = made.honest("leaf")
        assert scores
        honest.append(scores["overall"])
        apparent.append(score_split(best, data, "dev")["overall"])
        by_hand = [max(epochs, key=lambda e, refit=refit: score_split(refit.restricted(e, data), refit.data, "dev")[
            "overall"] or 0) for refit in refits(data, SUITE)]
        wanted = [refit.restricted(epoch, data).to_bytes() for refit, epoch in
                  zip(refits(data, SUITE), by_hand, strict=True)]
        assert [p.to_bytes() for p in made.refitted("leaf")] == wanted
    assert np.mean(apparent) > 0.42 and abs(np.mean(honest) - 0.4) < 0.015


def test_a_run_that_kept_no_epochs_leaves_all_above_without_an_honest_score(tmp_path: Path) -> None:
    made = crossfit(tmp_path, [skilled(1, 0.5, DATA)])
    made.add_leaf("old", skilled(2, 0.5, DATA), kept(None), chose=True)  # type: ignore[arg-type]
    assert made.honest("old") is None
    assert added(made, Best(members=handles(2)), [ids(1)[0], "old"]) is None


def test_a_last_epoch_was_not_chosen(tmp_path: Path) -> None:
    made = CrossFit(DATA, SUITE, tmp_path)
    made.add_leaf("last", skilled(2, 0.5, DATA), kept(None), chose=False)  # type: ignore[arg-type]
    assert made.honest("last") is None
    assert added(made, Best(members=handles(1)), ["last"]) == score_split(skilled(2, 0.5, DATA), DATA, "dev")


# --------------------------------------------------------------------------------------------------------------- cache

def test_scores_are_remembered_by_all_that_decides_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = [skilled(seed, 0.2, DATA) for seed in range(4)]
    first = added(crossfit(tmp_path, members), Best(members=handles(4)), ids(4))
    (note,) = tmp_path.iterdir()
    monkeypatch.setattr(CrossFit, "refitted", None)  # nothing is fitted again
    assert added(crossfit(tmp_path, members), Best(members=handles(4)), ids(4)) == first
    monkeypatch.undo()
    for other in (Fitted(members=handles(4)), Best(members=handles(4))):
        added(crossfit(tmp_path, members), other, ids(4), other.type)
    assert len(list(tmp_path.iterdir())) == 3  # another id is another note
    note.write_text("{damaged")
    assert added(crossfit(tmp_path, members), Best(members=handles(4)), ids(4)) == first
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert added(crossfit(blocked / "folder", members), Best(members=handles(4)), ids(4)) == first


def test_tasks_without_dev_labels_have_no_honest_score(tmp_path: Path) -> None:
    splits = {**DATA.splits, "paraphrase": {"dev": Examples(DATA.splits["paraphrase"]["dev"].ids, ())}}
    data = Data(TASKS, splits)
    members = [only_dev(skilled(seed, 0.2, DATA)) for seed in range(3)]
    honest = added(crossfit(tmp_path, members, data), Best(members=handles(3), by="sentiment"), ids(3))
    assert honest and honest["paraphrase"] is None and honest["overall"] is None and honest["sentiment"] is not None


def test_what_cannot_be_fitted_without_a_fold_has_no_honest_score(tmp_path: Path) -> None:
    few = made_data(n=FOLDS - 1)
    members = [skilled(seed, 0.2, few) for seed in range(3)]
    assert added(crossfit(tmp_path, members, few), Best(members=handles(3)), ids(3)) is None
    unlabelled = Data(TASKS, {task: {"dev": Examples(by["dev"].ids, ())} for task, by in DATA.splits.items()})
    made = CrossFit(unlabelled, SUITE, tmp_path)
    epochs = [only_dev(skilled(seed, 0.2, DATA)) for seed in range(3)]
    made.add_leaf("leaf", epochs[0], kept(epochs), chose=True)  # type: ignore[arg-type]
    assert added(made, Average(members=handles(1)), ["leaf"]) is None


def test_a_member_that_is_missing_a_task_has_none_of_its_scores(tmp_path: Path) -> None:
    members = [skilled(seed, 0.2, DATA, ["sentiment"]) for seed in range(3)]
    honest = added(crossfit(tmp_path, members), Best(members=handles(3), by="sentiment"), ids(3))
    assert honest and honest["similarity"] is None and honest["sentiment"] is not None


def test_only_the_order_of_rows_differs(tmp_path: Path) -> None:
    """Members with rows in another order have the same honest score."""
    members = [skilled(seed, 0.2, DATA) for seed in range(4)]
    turned = [Predictions({s: {t: Output(o.ids[::-1], o.scores[::-1]) for t, o in by.items()}
                           for s, by in m.outputs.items()}) for m in members]
    node = Fitted(members=handles(4))
    one, other = crossfit(tmp_path / "a", members), crossfit(tmp_path / "b", turned)
    assert added(one, node, ids(4)) == added(other, node, ids(4))
