"""The gradients of a step against separate backward passes; evaluation against one sentence at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gradients import expected, gradients, separate
from projects import project

from runner.parts.combiners import Combiner
from runner.parts.combiners.mean import Mean
from runner.parts.combiners.pcgrad import PCGrad
from runner.parts.combiners.sum import Sum
from runner.specs.loader import Loader
from runner.tasks.predictions import aligned
from runner.training import gradient_conflict
from runner.training.batches import Batches
from runner.training.evaluation import Evaluation
from runner.training.network import NetworkStep
from runner.training.trainer import Trainer, TrainerCallback
from runner.worker.worker import trainer_of


@pytest.fixture(params=[0, 1], ids=["all trained", "embeddings and a layer frozen"])
def trainer(request: pytest.FixtureRequest, tmp_path: Path) -> Trainer:
    root = project(tmp_path)
    settings = ["encoder.dropout=0.0", "encoder.hidden_dropout=0.0", "encoder.layers=2",
                f"encoder.frozen_layers={request.param}"]
    (node,) = Loader(root, "demo", settings).load(root / "specs" / "sum.toml")
    model = node.model
    return trainer_of(model, model.suite.load(root), root, tmp_path / "cache")


@pytest.mark.parametrize("combiner", [Sum(), Mean(), PCGrad()], ids=lambda c: c.type)
def test_gradients_are_those_of_the_definition(trainer: Trainer, combiner: Combiner) -> None:
    for step in range(3):
        wanted = expected(trainer, combiner, step)
        for compare in (False, True):
            trainer.network.clear()
            random = np.random.default_rng(3)
            losses = trainer.network.backward(trainer.batches.batch(step), combiner, random, compare=compare)
            assert losses.shape == (3,)
            found = gradients(trainer)
            assert found.keys() == {n for n, p in trainer.network.named_parameters() if p.requires_grad}
            for name, gradient in found.items():
                error = float((gradient - wanted[name]).norm())
                assert error <= 1e-4 * float(wanted[name].norm()) + 1e-6, name


def test_training_equals_that_of_a_plain_loop_with_dense_gradients(tmp_path: Path) -> None:
    """torch's AdamW on every parameter, one loss: what the compact word table must not change."""
    root = project(tmp_path)
    settings = ["encoder.hidden_dropout=0.0", "encoder.dropout=0.0", "optimizer.lr=0.003"]
    (node,) = Loader(root, "demo", settings).load(root / "specs" / "sum.toml")
    mine, plain = (trainer_of(node.model, node.model.suite.load(root), root, tmp_path / "cache") for _ in range(2))
    optimizer = torch.optim.AdamW(plain.network.parameters(), lr=0.003, weight_decay=0.0)
    before = plain.network.encoder.word.weight.detach().clone()
    factors = [node.model.schedule.factor(step, len(plain.batches)) for step in range(12)]
    for step, factor in enumerate(factors):
        mine._step(TrainerCallback())
        optimizer.param_groups[0]["lr"] = 0.003 * factor
        optimizer.zero_grad()
        torch.stack(plain.network.losses(plain.batches.batch(step))).sum().backward()
        optimizer.step()
    mine.network.write_back()
    for name, weight in plain.network.state_dict().items():
        if name.endswith("key.bias"):
            continue  # its gradient is zero but for roundings, which AdamW makes as large as any
        torch.testing.assert_close(mine.network.state_dict()[name], weight, rtol=1e-4, atol=2e-5)
    assert not torch.equal(before, plain.network.encoder.word.weight)
    assert len(mine.network.words.used) < len(before)


def test_conflict_is_summed_up_as_the_definition_says(trainer: Trainer) -> None:
    sums: dict[str, float] = {}
    cosines = []
    for step in range(3):
        vectors = [torch.cat([g.flatten() for n, g in task.items() if n.startswith("encoder.")]).double()
                   for task in separate(trainer, step)]
        cosines.append([float(torch.cosine_similarity(vectors[i], vectors[j], dim=0))
                        for i, j in ((0, 1), (0, 2), (1, 2))])
        trainer.network.clear()
        trainer.network.backward(trainer.batches.batch(step), Sum(), np.random.default_rng(3), compare=True)
        assert trainer.network.gram is not None
        sums = gradient_conflict.accumulate(sums, trainer.tasks, trainer.network.gram)
    said = gradient_conflict.summary(sums)["conflict"]
    assert list(said["pairs"]) == ["paraphrase/sentiment", "paraphrase/similarity", "sentiment/similarity"]
    np.testing.assert_allclose(list(said["pairs"].values()), np.mean(cosines, axis=0), atol=1e-4)
    assert (said["share"], said["steps"]) == (np.mean([min(row) < 0 for row in cosines]), 3)
    assert gradient_conflict.summary({}) == {}


def test_surgery_does_something_here(trainer: Trainer) -> None:
    """Otherwise the test above would not tell PCGrad from a sum."""
    differs = []
    for step in range(3):
        one, other = (expected(trainer, c, step) for c in (Sum(), PCGrad()))
        differs.append(max(float((one[n] - other[n]).abs().max()) for n in one))
    assert max(differs) > 1e-4


def test_a_frozen_encoder_keeps_its_weights(tmp_path: Path) -> None:
    root = project(tmp_path)
    (node,) = Loader(root, "demo", ["encoder.freeze=true", "combiner=pcgrad"]).load(root / "specs" / "sum.toml")
    trainer = trainer_of(node.model, node.model.suite.load(root), root, tmp_path / "cache")
    before = {n: p.clone() for n, p in trainer.network.state_dict().items()}
    trainer.run(TrainerCallback(), tmp_path / "checkpoint")
    changed = {n for n, p in trainer.network.state_dict().items() if not torch.equal(p, before[n])}
    assert changed == {f"heads.{t}.{p}" for t in ("sentiment", "paraphrase") for p in ("weight", "bias")}


def test_evaluation_is_the_network_on_each_example(trainer: Trainer) -> None:
    data, network = trainer.data, trainer.network
    was_training = network.training
    predictions = Evaluation(data, trainer.batches.tokens, ("sentiment", "similarity"), ("dev", "test"))(network)
    assert network.training == was_training
    network.eval()
    tokens = trainer.batches.tokens
    for task in ("sentiment", "similarity"):
        examples = data.splits[task]["dev"]
        scores = aligned(predictions.outputs["dev"][task], examples)
        for i in range(5):
            texts = [examples.first[i], *([examples.second[i]] if examples.second else [])]
            rows = tokens.rows(texts)
            alone = tuple(network.embed(tokens.pack(rows[j:j + 1], (1,)), (task,)) for j in range(len(rows)))
            single = network.scores(task, alone)
            np.testing.assert_allclose(scores[i], single[0].detach().numpy(), atol=1e-5)
    assert set(predictions.outputs) == {"dev", "test"}


def test_batches_cover_each_epoch_and_depend_on_seed_and_step_only(trainer: Trainer, tmp_path: Path) -> None:
    data, tokens, train = trainer.data, trainer.batches.tokens, trainer.model.train
    tasks = ("sentiment", "paraphrase", "similarity")
    first, again = (Batches(data, tokens, tasks, train) for _ in range(2))
    assert first.steps_per_epoch == -(-60 // 8)
    for step in (5, 0, 11):
        one, two = first.batch(step), again.batch(step)
        assert torch.equal(one.packed.tokens, two.packed.tokens)
        assert all(torch.equal(one.labels[t], two.labels[t]) for t in tasks)
    seen = [np.concatenate([first._indices("sentiment", 60, e * first.steps_per_epoch + s)
                            for s in range(first.steps_per_epoch)]) for e in range(2)]
    assert sorted(seen[0]) == sorted(seen[1]) == list(range(60))
    assert seen[0].tolist() != seen[1].tolist()
    other = Batches(data, tokens, tasks, train.model_copy(update={"seed": 1}))
    assert not torch.equal(other.batch(0).packed.tokens, first.batch(0).packed.tokens)


@pytest.mark.parametrize(("change", "steps"), [({"epoch": "longest"}, 8), ({"steps": 20}, 20), ({"batch_size": 7}, 9)])
def test_lengths_of_an_epoch(trainer: Trainer, change: dict[str, object], steps: int) -> None:
    train = trainer.model.train.model_copy(update=change)
    batches = Batches(trainer.data, trainer.batches.tokens, ("sentiment", "paraphrase"), train)
    assert batches.steps_per_epoch == steps
    used = np.concatenate([batches._indices("sentiment", 60, s) for s in range(steps)])
    counts = np.bincount(used, minlength=60)
    assert counts.max() - counts.min() <= 1, "every example is used once before any is used again"


def test_methods_of_a_step_by_their_old_names(trainer: Trainer) -> None:
    """Regularizers of one's own that were written for mtrun 0.1 go on."""
    step = NetworkStep(trainer.network, trainer.batches.batch(0))
    with pytest.warns(FutureWarning, match=r"`Step.still` is now `Step.detached`"):
        assert isinstance(step.still(), NetworkStep)
    with pytest.raises(AttributeError, match="nothing"):
        step.nothing  # noqa: B018
