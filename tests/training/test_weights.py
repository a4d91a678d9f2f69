"""Weights of examples and of classes, and several labels an example, in training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from projects import project
from torch.nn import functional
from train_runs import digest, resumed, trainer, whole

from runner.parts.losses.bce import BinaryCrossEntropy
from runner.specs.loader import Loader
from runner.tasks.data import Data
from runner.training.trainer import Trainer, TrainerCallback
from runner.worker.worker import trainer_of

DRY = ["encoder.dropout=0.0", "encoder.hidden_dropout=0.0"]


def with_data(root: Path, change: Callable[[Data], Data], *settings: str) -> Trainer:
    (node,) = Loader(root, "demo", [*DRY, *settings]).load(root / "specs" / "sum.toml")
    model, data = node.model, change(node.model.suite.load(root))
    if data.tasks["sentiment"].kind == "multilabel":  # the suite of the spec has classes
        head = model.heads["sentiment"].model_copy(update={"loss": BinaryCrossEntropy()})
        model = model.model_copy(update={"heads": {**model.heads, "sentiment": head}})
    return trainer_of(model, data, root, root / "cache")


def weighted(data: Data) -> Data:
    """Return the data with a weight for each training example of one task."""
    train = data.splits["sentiment"]["train"]
    weights = np.random.default_rng(0).uniform(0.1, 3.0, len(train))
    return replace(data, splits={**data.splits, "sentiment": {**data.splits["sentiment"],
                                                              "train": replace(train, weights=weights)}})


def several(data: Data) -> Data:
    """Return the data with sentiment as a multi-label task: which of 1 to 4 the class reaches."""
    splits = {}
    for split, examples in data.splits["sentiment"].items():
        labels = examples.labels
        reached = None if labels is None else (labels[:, None] >= np.arange(1, 5)).astype(np.float64)
        splits[split] = replace(examples, labels=reached)
    task = data.tasks["sentiment"].model_copy(
        update={"kind": "multilabel", "classes": 4, "labels": ("fair", "good", "great", "best")})
    return Data({**data.tasks, "sentiment": task}, {**data.splits, "sentiment": splits})


def losses(run: Trainer, step: int) -> dict[str, float]:
    found = run.network.losses(run.batches.batch(step))
    return {task: float(loss.detach()) for task, loss in zip(run.tasks, found, strict=True)}


def test_a_loss_is_the_mean_of_the_weighted_losses_of_the_examples(tmp_path: Path) -> None:
    root = project(tmp_path)
    plain, run = with_data(root, lambda data: data), with_data(root, weighted)
    batch, mine = plain.batches.batch(3), losses(run, 3)
    index = plain.batches._indices("sentiment", len(plain.data.splits["sentiment"]["train"]), 3)
    weights = torch.tensor(weighted(plain.data).splits["sentiment"]["train"].weights[index])  # type: ignore[index]
    plain.network.eval()
    embeddings = plain.network.embed(batch.packed, plain.tasks).split_with_sizes(batch.packed.sections)
    scores = plain.network.scores("sentiment", (embeddings[plain.tasks.index("sentiment")],))
    each = functional.cross_entropy(scores, batch.labels["sentiment"].long(), reduction="none")
    assert mine["sentiment"] == pytest.approx(float((each * weights).mean().detach()), rel=1e-5)
    others = {task: loss for task, loss in losses(plain, 3).items() if task != "sentiment"}
    assert others == {task: loss for task, loss in mine.items() if task != "sentiment"}


def test_class_weights_act_like_weights_of_the_examples(tmp_path: Path) -> None:
    root = project(tmp_path)
    balanced = 'heads.sentiment.loss={type="cross_entropy", class_weights="balanced"}'
    given = with_data(root, lambda data: data, balanced)

    def by_hand(data: Data) -> Data:
        train = data.splits["sentiment"]["train"]
        assert train.labels is not None
        sizes = np.bincount(train.labels.astype(int), minlength=5)
        weights = len(train) / (5 * sizes[train.labels.astype(int)])
        return replace(data, splits={**data.splits, "sentiment": {**data.splits["sentiment"],
                                                                  "train": replace(train, weights=weights)}})

    same = with_data(root, by_hand)
    for run in (given, same):
        run.run(TrainerCallback(), tmp_path / "none")
    assert digest(given) == digest(same) != digest(with_data(root, lambda data: data))


SETTINGS = {"sum": ["combiner=sum"], "pcgrad and rdrop": ["combiner=pcgrad", "regularizer=rdrop"]}


@pytest.mark.parametrize("change", [weighted, several])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_step_in_parts_has_the_gradients_of_the_whole(tmp_path: Path, change: Callable[[Data], Data],
                                                        settings: list[str]) -> None:
    root, found = project(tmp_path), []
    for parts in (1, 3):
        run = with_data(root, change, *settings)
        total = run.network.backward(run.batches.batch(0), run.model.combiner, np.random.default_rng(0), parts)
        found.append((total, {name: p.grad for name, p in run.network.named_parameters() if p.grad is not None}))
    (total, gradients), (other, others) = found
    torch.testing.assert_close(total, other, rtol=1e-5, atol=1e-6)
    for name in gradients:
        torch.testing.assert_close(gradients[name], others[name], rtol=1e-3, atol=1e-5)


def test_several_labels_are_learned_and_scored(tmp_path: Path) -> None:
    run = with_data(project(tmp_path), several, "train.epochs=6", "optimizer.lr=0.01")
    predictions = run.run(TrainerCallback(), tmp_path / "none")
    assert predictions.outputs["dev"]["sentiment"].scores.shape[1] == 4
    micro = [epoch["dev"]["sentiment"] for epoch in run.state.history]
    assert max(micro) > micro[0] and max(micro) > 0.5, "better than at first"


def test_weighted_training_that_is_stopped_and_goes_on_is_the_same_to_the_bit(tmp_path: Path) -> None:
    root = project(tmp_path)
    settings = ['heads.sentiment.loss={type="focal", class_weights="balanced"}', "combiner=pcgrad"]
    wanted, predictions, ticks = whole(root, *settings)
    run, bytes_ = resumed(root, [ticks // 3, ticks // 3], *settings)
    assert (digest(run), bytes_) == (digest(wanted), predictions)
    assert digest(trainer(root, *settings)) != digest(wanted)


def test_ordered_classes_are_trained_and_resumed(tmp_path: Path) -> None:
    root = project(tmp_path)
    settings = ['heads.sentiment={type="ordered", loss="coral"}']
    wanted, predictions, ticks = whole(root, *settings)
    run, bytes_ = resumed(root, [ticks // 2], *settings)
    assert (digest(run), bytes_) == (digest(wanted), predictions)
    assert wanted.state.history[-1]["losses"]["sentiment"] < wanted.state.history[0]["losses"]["sentiment"]
