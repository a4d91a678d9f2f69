"""Regularizers against their definitions, written out here on plain passes; with every combiner, in parts, resumed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gradients import expected, gradients
from projects import project, write
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, kl_divergence
from torch.func import functional_call
from torch.nn import functional
from train_runs import digest, resumed, whole

from runner.errors import SpecError
from runner.parts.combiners import Combiner
from runner.parts.combiners.mean import Mean
from runner.parts.combiners.pcgrad import PCGrad
from runner.parts.combiners.sum import Sum
from runner.specs.loader import Loader
from runner.tasks.data import Task
from runner.training import masked_lm
from runner.training.batches import Batch
from runner.training.network import Network, NetworkStep, divergence
from runner.training.trainer import Trainer, TrainerCallback
from runner.worker.worker import trainer_of

CROSS = "heads.paraphrase={type='cross',loss='bce',weight=0.5}"
ALL = ["regularizer={type='rdrop',alpha=0.7}", "regularizer={type='smart',alpha=3.0,epsilon=0.05,sigma=0.01}",
       "regularizer={type='mixout',p=0.4}", "regularizer={type='masked',alpha=0.5,p=0.3}"]
NAMES = ["rdrop", "smart", "mixout", "masked"]
DRY = ["encoder.dropout=0.0", "encoder.hidden_dropout=0.0"]


def trainer(root: Path, *settings: str) -> Trainer:
    settings = ("encoder.layers=2", "encoder.segments=2", CROSS, *settings)
    (node,) = Loader(project(root), "demo", settings).load(root / "specs" / "sum.toml")
    return trainer_of(node.model, node.model.suite.load(root), root, root / "cache")


# What is the same for all --------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("task", "distribution"), [
    (Task(title="a", kind="classification", classes=5), lambda scores: Categorical(logits=scores)),
    (Task(title="b", kind="binary", sentences=2), lambda scores: Bernoulli(logits=scores[:, 0]))])
def test_divergence_is_the_mean_of_torchs(task: Task, distribution: Callable[[Tensor], Any]) -> None:
    torch.manual_seed(0)
    one, other = (3 * torch.randn(50, task.outputs, dtype=torch.float64) for _ in range(2))
    p, q = distribution(one), distribution(other)
    torch.testing.assert_close(divergence(one, other, task), (kl_divergence(p, q) + kl_divergence(q, p)) / 2)
    assert not divergence(one, one, task).any()


def test_divergence_of_a_regression_is_the_squared_difference() -> None:
    task = Task(title="c", kind="regression", high=5.0, sentences=2)
    torch.testing.assert_close(divergence(torch.tensor([[1.0], [4.0]]), torch.tensor([[3.0], [4.5]]), task),
                               torch.tensor([4.0, 0.25]))


@pytest.mark.parametrize("setting", ALL, ids=NAMES)
@pytest.mark.parametrize("combiner", [Sum(), Mean(), PCGrad()], ids=lambda c: c.type)
def test_gradients_are_those_of_separate_passes(tmp_path: Path, combiner: Combiner, setting: str) -> None:
    """Of each task's own loss, by a backward pass of its own, with the same random numbers."""
    run = trainer(tmp_path, setting, *DRY)
    move(run)
    losses = run.network.losses
    run.network.losses = lambda *given: (torch.manual_seed(5), losses(*given))[1]  # type: ignore[method-assign]
    for step in range(2):
        wanted = expected(run, combiner, step)
        for compare in (False, True):
            run.network.clear()
            run.network.backward(run.batches.batch(step), combiner, np.random.default_rng(3), compare=compare)
            for name, gradient in gradients(run).items():
                error = float((gradient - wanted[name]).norm())
                assert error <= 2e-4 * float(wanted[name].norm()) + 1e-6, name


def move(run: Trainer) -> None:
    """Move the encoder away from where training began."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in run.parameters.items():
            parameter += 0.05 * torch.randn_like(parameter) * (name != "encoder.word.weight")
    run.network.write_back()


def test_the_parts_of_a_step_add_up(tmp_path: Path) -> None:
    run = trainer(tmp_path, ALL[2], *DRY)
    move(run)

    def said(batch: Batch) -> Tensor:
        step = NetworkStep(run.network, batch)
        now, then = step.scores(), step.scores(step.start)
        return torch.stack([*step.losses(now), *step.apart(now, then)])

    batch = run.batches.batch(0)
    torch.testing.assert_close(sum(said(part) for part in batch.split(3)), said(batch))
    assert (said(batch) > 0).all()


@pytest.mark.parametrize("setting", ALL, ids=NAMES)
def test_stopped_and_resumed_is_the_same_to_the_bit(tmp_path: Path, setting: str) -> None:
    root, settings = project(tmp_path), [setting, "combiner=pcgrad", CROSS]
    wanted, predictions, ticks = whole(root, *settings)
    run, again = resumed(root, [ticks // 3, ticks // 3], *settings)
    assert digest(run) == digest(wanted) and again == predictions
    plain, _, _ = whole(root, *settings[1:])
    assert digest(plain) != digest(wanted)


@pytest.mark.parametrize("setting", ALL, ids=NAMES)
def test_heads_on_a_frozen_encoder_can_be_regularized(tmp_path: Path, setting: str) -> None:
    run = trainer(tmp_path, setting, "encoder.freeze=true", "combiner=pcgrad")
    losses = run.network.backward(run.batches.batch(0), PCGrad(), np.random.default_rng(3), 2)
    assert losses.isfinite().all()
    assert {name for name, p in run.network.named_parameters() if p.grad is not None} == set(run.parameters)


def test_the_default_is_in_no_id_and_a_summary_names_it(tmp_path: Path) -> None:
    plain, dropped = trainer(tmp_path).model, trainer(tmp_path, ALL[0]).model
    assert "regularizer" not in plain.canonical()
    assert dropped.canonical()["regularizer"] == {"type": "rdrop", "version": 1, "alpha": 0.7}
    assert dropped.summary() == f"rdrop; {plain.summary()}"


# Each by itself ------------------------------------------------------------------------------------------------------

def spoken(network: Network, batch: Batch, encoder: dict[str, Tensor] | None = None,
           moved: Tensor | None = None) -> dict[str, Tensor]:
    """The scores of one pass, the noise put in where words are looked up; draws dropout as the network does."""
    bert = network.encoder

    def hook(module: torch.nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        rows = functional.pad(moved, (0, 0, 0, len(given[0]) - len(moved)))  # type: ignore[arg-type]
        return (given[0] + rows, *given[1:])

    handle = bert.norm.register_forward_pre_hook(hook) if moved is not None else None
    embeddings = network.dropout(functional_call(bert, encoder or {}, (batch.packed,)))
    if handle:
        handle.remove()
    blocks = embeddings.split(batch.packed.sections)
    return {task: network.scores(task, (block,) if task != "similarity" else tuple(block.chunk(2)))
            for task, block in zip(batch.labels, blocks, strict=True)}


def plain(network: Network, batch: Batch, scores: dict[str, Tensor]) -> list[Tensor]:
    heads = network.model.heads
    return [heads[t].weight * heads[t].loss.each(scores[t], labels, network.tasks[t]).mean()
            for t, labels in batch.labels.items()]


def apart(network: Network, one: dict[str, Tensor], other: dict[str, Tensor]) -> list[Tensor]:
    return [network.model.heads[t].weight * divergence(one[t], other[t], network.tasks[t]).mean() for t in one]


def test_rdrop_is_two_passes(tmp_path: Path) -> None:
    run = trainer(tmp_path, ALL[0], "encoder.dropout=0.3")
    network, batch = run.network.train(), run.batches.batch(0)
    torch.manual_seed(7)
    found = network.losses(batch)
    torch.manual_seed(7)
    one, other = spoken(network, batch), spoken(network, batch)
    wanted = [(a + b) / 2 + 0.7 * d for a, b, d in zip(plain(network, batch, one), plain(network, batch, other),
                                                       apart(network, one, other), strict=True)]
    torch.testing.assert_close(found, wanted)
    assert all(d > 1e-4 for d in apart(network, one, other))


def test_rdrop_without_dropout_adds_nothing(tmp_path: Path) -> None:
    run = trainer(tmp_path, ALL[0], *DRY)
    batch = run.batches.batch(0)
    torch.testing.assert_close(run.network.losses(batch), plain(run.network, batch, spoken(run.network, batch)))


def test_smart_takes_one_step_of_ascent(tmp_path: Path) -> None:
    run = trainer(tmp_path, ALL[1], *DRY)
    network, batch = run.network, run.batches.batch(0)
    torch.manual_seed(7)
    found = network.losses(batch)
    torch.manual_seed(7)
    scores = spoken(network, batch)
    noise = (0.01 * torch.randn(len(batch.packed.tokens), 16)).requires_grad_()
    said = {task: known.detach() for task, known in scores.items()}
    (slope,) = torch.autograd.grad(sum(apart(network, said, spoken(network, batch, moved=noise))), noise)
    worst = noise.detach() + 0.05 * slope / slope.abs().max(dim=1, keepdim=True).values
    worst = worst.clamp(-0.05, 0.05)
    far = apart(network, scores, spoken(network, batch, moved=worst))
    wanted = [loss + 3 * d for loss, d in zip(plain(network, batch, scores), far, strict=True)]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    random = [apart(network, scores, spoken(network, batch, moved=0.05 * torch.sign(torch.randn_like(worst))))
              for _ in range(20)]
    assert all(d > max(others) for d, others in zip(far, zip(*random, strict=True), strict=True)), "it is adversarial"


def test_noise_is_on_the_words_whatever_the_table(tmp_path: Path) -> None:
    run = trainer(tmp_path, ALL[1], *DRY)
    network, batch = run.network, run.batches.batch(0)
    noise = 0.1 * torch.randn(len(batch.packed.tokens), 16)
    wanted = spoken(network, batch, moved=noise)
    assert network.words
    rows, renumbered = network.words.gather(batch)
    for step in (NetworkStep(network, batch), NetworkStep(network, renumbered, {"word.weight": rows}),
                 NetworkStep(network, renumbered, {"word.weight": rows.expand(3, *rows.shape)})):
        for one in (step, step.detached()):
            torch.testing.assert_close(one.scores(noise=noise), wanted)
            torch.testing.assert_close(one.words, network.encoder.word.weight.detach()[batch.packed.tokens])
    assert not any(p.requires_grad for p in step.detached().parameters.values())


def test_mixout_mixes_in_the_weights_of_the_start(tmp_path: Path) -> None:
    run = trainer(tmp_path, ALL[2], *DRY)
    start = {name: p.detach().clone() for name, p in run.network.encoder.named_parameters()}
    move(run)
    network, batch = run.network, run.batches.batch(0)
    torch.manual_seed(7)
    found = network.losses(batch)
    torch.manual_seed(7)
    mixed = {}
    for name, p in network.encoder.named_parameters():
        if name != "word.weight":
            kept = torch.empty_like(p).bernoulli_(0.6).bool()
            mixed[name] = torch.where(kept, (p - 0.4 * start[name]) / 0.6, start[name])  # the paper's form
    torch.testing.assert_close(found, plain(network, batch, spoken(network, batch, mixed)), rtol=1e-4, atol=1e-6)


def test_mixout_keeps_the_mean_and_its_rate(tmp_path: Path) -> None:
    run = trainer(tmp_path, ALL[2], *DRY)
    move(run)
    seen: list[Tensor] = []
    name, step = "blocks.0.expand.weight", NetworkStep(run.network, run.batches.batch(0))
    regularizer = run.model.regularizer
    assert regularizer

    class Looking:
        """A step that notes what it is told to compute with."""

        parameters, start, losses = step.parameters, step.start, staticmethod(lambda scores: [])

        @staticmethod
        def scores(mixed: dict[str, Tensor]) -> dict[str, Tensor]:
            seen.append(mixed[name].detach())
            return {}

    torch.manual_seed(0)
    for _ in range(500):
        regularizer.losses(Looking())  # type: ignore[arg-type]
    made, now, begun = torch.stack(seen), step.parameters[name].detach(), step.start[name]
    replaced = (made == begun).float().mean(0)
    assert abs(float(replaced.mean()) - 0.4) < 0.004
    assert ((made.mean(0) - now).abs() <= 6 * made.std(0) / 500**0.5).all()


def test_what_training_began_with_is_the_same_after_a_stop(tmp_path: Path) -> None:
    one, checkpoint = trainer(tmp_path, ALL[2]), tmp_path / "checkpoint"
    move(one)
    one.save(checkpoint)
    again = trainer(tmp_path, ALL[2])
    again.restore(checkpoint)
    assert one.network.start.keys() == again.network.start.keys()
    assert all(torch.equal(again.network.start[name], value) for name, value in one.network.start.items())
    assert "word.weight" not in one.network.start and trainer(tmp_path).network.start == {}
    assert not torch.equal(again.network.start["norm.bias"], again.network.encoder.norm.bias)


# Masked words --------------------------------------------------------------------------------------------------------

def texts(batch: Batch) -> list[list[int]]:
    """The places of each sentence's words, by hand: [CLS] a [SEP], or [CLS] a [SEP] b [SEP]."""
    packed, start, found = batch.packed, 0, []
    firsts = packed.lengths if packed.firsts is None else packed.firsts
    for length, first in zip(packed.lengths.tolist(), firsts.tolist(), strict=True):
        found.append([start + place for place in range(1, length - 1) if place != first - 1])
        start += length
    return found


@pytest.mark.parametrize("renumbered", [False, True])
def test_masked_is_berts_loss_on_a_batch_with_other_tokens(tmp_path: Path, renumbered: bool) -> None:
    run = trainer(tmp_path, ALL[3], "heads.sentiment.weight=0.0", *DRY)
    network, batch, words = run.network, run.batches.batch(0), run.network.words
    assert words and batch.packed.firsts is not None
    rows, renumbered_batch = words.gather(batch)
    torch.manual_seed(7)
    found = network.losses(renumbered_batch, {"word.weight": rows}) if renumbered else network.losses(batch)
    torch.manual_seed(7)
    chosen = torch.rand(len(batch.packed.tokens)) < 0.3
    places = [place for text in texts(batch) for place in text if chosen[place]]
    fate, other = torch.rand(len(places)), torch.randint(len(words.used), (len(places),))
    tokens = batch.packed.tokens.clone()
    mask = network.encoder.mask
    assert mask == 4 and mask not in words.used, "[MASK] is the fifth piece of a vocabulary of our own"
    for number, place in enumerate(places):
        if fate[number] < 0.9:
            tokens[place] = mask if fate[number] < 0.8 else words.used[other[number]]
    states = network.encoder.hidden(replace(batch.packed, tokens=tokens))
    said = (network.regularizer(states) @ network.encoder.word.weight[words.used].T).log_softmax(1)
    wanted = plain(network, batch, spoken(network, batch))
    assert wanted[1] == 0
    start = 0
    for task, section in enumerate(batch.packed.sections):
        for text in texts(batch)[start:start + section]:
            missed = [-said[p, words.used.tolist().index(int(batch.packed.tokens[p]))] for p in text if chosen[p]]
            wanted[task] = wanted[task] + 0.5 * sum(missed) / max(len(missed), 1) / section
        start += section
    torch.testing.assert_close(found, wanted)


def test_the_words_are_chosen_and_changed_as_in_the_paper(tmp_path: Path) -> None:
    run = trainer(tmp_path, ALL[3], *DRY)
    step, words = NetworkStep(run.network, run.batches.batch(0)), run.network.words
    assert words
    inner = [place for text in texts(step.batch) for place in text]
    own, mask = step.words, run.network.encoder.word.weight[run.network.encoder.mask]
    counts = torch.zeros(4)  # chosen, hidden, another word, left
    corrupt = masked_lm.corrupt

    def seen(words: Tensor, places: Tensor, *given: Tensor) -> Tensor:
        shown = corrupt(words, places, *given)
        assert set(places.tolist()) <= set(inner)
        untouched = torch.ones(len(own), dtype=torch.bool).index_fill(0, places, False)
        assert torch.equal(shown[untouched], own[untouched])
        hidden, left = (shown[places] == mask).all(1), (shown[places] == own[places]).all(1)
        counts.add_(torch.tensor([len(places), hidden.sum(), (~hidden & ~left).sum(), left.sum()]))
        return shown

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(masked_lm, "corrupt", seen)
        for seed in range(300):
            torch.manual_seed(seed)
            step.masked_lm_loss(0.15)
    share = counts / torch.tensor([300 * len(inner), *[float(counts[0])] * 3])
    assert torch.allclose(share, torch.tensor([0.15, 0.8, 0.1, 0.1]), atol=0.01), share


def test_where_no_word_is_chosen_nothing_is_added(tmp_path: Path) -> None:
    run = trainer(tmp_path, "regularizer={type='masked',p=1e-9}", *DRY)
    network, batch = run.network, run.batches.batch(0)
    torch.testing.assert_close(network.losses(batch), plain(network, batch, spoken(network, batch)))
    network.backward(batch, PCGrad(), np.random.default_rng(3), 2)
    assert all(p.grad is not None and not p.grad.any() for p in network.regularizer.parameters())


def test_further_pretraining_is_heads_without_weight(tmp_path: Path) -> None:
    """It learns to guess, and what it has learnt is what another model begins with."""
    settings = [ALL[3], "train.select=last", "train.epochs=12", "optimizer.lr=0.01", *DRY,
                *(f"heads.{task}.weight=0.0" for task in ("sentiment", "paraphrase", "similarity"))]
    run = trainer(tmp_path, *settings)
    before = {name: p.detach().clone() for name, p in run.network.named_parameters()}
    run.run(TrainerCallback(), tmp_path / "none")
    after = dict(run.network.named_parameters())
    assert {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])} == {
        "encoder", "regularizer"}
    first, last = (sum(epoch["losses"].values()) for epoch in (run.state.history[0], run.state.history[-1]))
    assert last < 0.9 * first


CLOSED = '''
"""The encoder `closed`: minBERT, but for the states of its tokens."""
from runner.parts.encoders.minbert import MinBert


class Closed(MinBert):
    """minBERT, but for the states of its tokens."""

    type = "closed"
    has_token_states = False
'''


def test_an_encoder_that_tells_no_tokens_is_named(tmp_path: Path) -> None:
    root = project(tmp_path)
    write(root, {"parts/encoders/closed.py": CLOSED, "specs/wrong.toml": (
        'kind = "model"\nextends = "sum.toml"\n[encoder]\ntype = "closed"\ninit = "scratch"\nwidth = 16\nlayers = 1\n'
        'attention_heads = 2\nvocabulary = 200\n[regularizer]\ntype = "masked"\n')})
    with pytest.raises(SpecError) as caught:
        Loader(root, "demo").load(root / "specs" / "wrong.toml")
    (problem,) = caught.value.problems
    assert problem.message.startswith("the regularizer `masked` needs the states of single tokens")
    assert problem.place and (problem.place.line, problem.place.column) == (11, 8)
    assert problem.notes == ("encoders for it: minbert",)
