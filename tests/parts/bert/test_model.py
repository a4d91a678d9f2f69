"""The packed encoder computes what transformers' BERT computes, and banks give every task its own gradient."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from bert_cases import (
    DOUBLE,
    MODEL,
    NOWHERE,
    SIZES,
    Drawn,
    banks_of,
    batches,
    by_task,
    data,
    near,
    ours,
    pack,
    padded,
    peer,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional
from transformers import BertModel

from runner.parts.encoders.bert import ops
from runner.parts.encoders.bert.architectures import ARCHITECTURES, Sizes
from runner.parts.encoders.bert.checkpoints import find
from runner.parts.encoders.bert.model import Bert
from runner.parts.encoders.bert.packing import ROUND, PackedLayout
from runner.parts.encoders.minbert import MinBert
from runner.tasks.data import Data
from runner.training import tokens

CPU = torch.device("cpu")


# Equal to transformers ------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(batches())
@torch.no_grad()
def test_states_and_pooler_equal_those_of_transformers(batch: Drawn) -> None:
    sentences, _ = batch
    packed, mine = pack(*batch), ours(MODEL).eval()
    single = [MODEL(sentence[None]) for sentence in sentences]
    together = MODEL(**padded(sentences))
    states, pooled = mine.hidden(packed), mine(packed)
    assert torch.allclose(states, torch.cat([s.last_hidden_state[0] for s in single]), atol=1e-4)
    assert torch.allclose(states, together.last_hidden_state[padded(sentences)["attention_mask"]], atol=1e-4)
    assert torch.allclose(pooled, torch.cat([s.pooler_output for s in single]), atol=1e-4)
    assert torch.allclose(pooled, together.pooler_output, atol=1e-4)


@settings(max_examples=15, deadline=None)
@given(batches())
@torch.no_grad()
def test_other_poolings_are_what_their_names_say(batch: Drawn) -> None:
    packed = pack(*batch)
    states = [MODEL(sentence[None]).last_hidden_state[0] for sentence in batch[0]]
    assert torch.allclose(ours(MODEL, "cls").eval()(packed), torch.stack([s[0] for s in states]), atol=1e-4)
    assert torch.allclose(ours(MODEL, "mean").eval()(packed), torch.stack([s.mean(0) for s in states]), atol=1e-4)


@pytest.mark.parametrize(("layers", "heads", "width", "intermediate"), [(1, 1, 8, 4), (2, 8, 8, 96), (5, 2, 16, 16)])
@torch.no_grad()
def test_any_depth_and_width(layers: int, heads: int, width: int, intermediate: int) -> None:
    model = peer(num_hidden_layers=layers, num_attention_heads=heads, hidden_size=width,
                 intermediate_size=intermediate).eval()
    sentences = [torch.arange(length) for length in (48, 1, 2, 30, 5, 5)]
    expected = model(**padded(sentences)).pooler_output
    assert torch.allclose(ours(model).eval()(pack(sentences, (2, 4))), expected, atol=1e-4)


def gradients(batch: Drawn, model: BertModel, pooling: str) -> list[tuple[Tensor, Tensor, str]]:
    """Return our gradient, theirs and the name of each parameter for the same random function of the embeddings."""
    mine = ours(model, pooling).train()
    random = torch.Generator().manual_seed(4)
    factors = torch.randn(len(batch[0]), model.config.hidden_size, generator=random, dtype=model.dtype)
    (mine(pack(*batch)) * factors).sum().backward()
    model.zero_grad()
    inputs = padded(batch[0])
    out, mask = model(**inputs), inputs["attention_mask"][..., None]
    states = out.last_hidden_state
    theirs = {"pooler": out.pooler_output, "cls": states[:, 0], "mean": (states * mask).sum(1) / mask.sum(1)}[pooling]
    (theirs * factors).sum().backward()
    expected = {name: parameter.grad for name, parameter in model.named_parameters()}
    return [(p.grad, expected[ARCHITECTURES["bert"].their_name(name)], name) for name, p in mine.named_parameters()]


@pytest.mark.parametrize("pooling", ["pooler", "cls", "mean"])
@settings(max_examples=8, deadline=None)
@given(batch=batches())
def test_gradients_equal_those_of_transformers(pooling: str, batch: Drawn) -> None:
    for model, limit in ((DOUBLE, 1e-10), (MODEL, 1e-5)):
        found = gradients(batch, model, pooling)
        rounding = limit / 100 * torch.stack([theirs.norm() for _, theirs, _ in found]).norm()
        for mine, theirs, name in found:  # that of a key's bias is zero but for rounding: softmax cancels it
            assert (mine - theirs).norm() <= limit * theirs.norm() + rounding, name


# Banks: one backward pass, one gradient a task ------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["pooler", "mean"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@settings(max_examples=8, deadline=None)
@given(batch=batches())
def test_banks_equal_separate_backward_passes(pooling: str, dropout: float,
                                              batch: Drawn) -> None:
    mine, packed = ours(DOUBLE, pooling, dropout).train(), pack(*batch)
    banks = banks_of(mine, len(packed.sections))
    torch.manual_seed(9)
    together = by_task(functional_call(mine, banks, (packed,)), packed.sections)
    sum(together).backward()
    torch.manual_seed(9)
    apart = by_task(mine(packed), packed.sections)
    assert all(torch.equal(a, b) for a, b in zip(together, apart, strict=True))
    for number, loss in enumerate(apart):
        expected = torch.autograd.grad(loss, list(mine.parameters()), retain_graph=True)
        for (name, bank), gradient in zip(banks.items(), expected, strict=True):
            limit = 1e-9 * float(gradient.norm()) + 1e-12
            assert torch.allclose(bank.grad[number], gradient, rtol=1e-9, atol=limit), name


def test_a_gradient_of_a_task_without_sentences_is_zero() -> None:
    mine = ours(MODEL).train()
    banks = banks_of(mine, 3)
    embeddings = functional_call(mine, banks, (pack([torch.arange(9), torch.arange(4)], (1, 0, 1)),))
    sum(by_task(embeddings, (1, 0, 1))).backward()
    assert all(bank.grad.shape == bank.shape and not bank.grad[1].any() for bank in banks.values())
    assert all(bank.grad[0].any() for bank in banks.values())


@pytest.mark.parametrize("tasks", [0, 3])
def test_the_word_table_may_be_some_of_its_rows(tasks: int) -> None:
    mine = ours(MODEL).train()
    packed = pack([torch.tensor(ids) for ids in ([5, 80, 5], [80, 2], [9], [5, 7, 7, 1])], (2, 1, 1))
    rows, numbers = packed.tokens.unique(return_inverse=True)
    few = mine.word.weight.detach()[rows]
    few = (few.expand(tasks, *few.shape) if tasks else few).requires_grad_()
    embeddings = functional_call(mine, {"word.weight": few}, (replace(packed, tokens=numbers),))
    sum(by_task(embeddings, packed.sections)).backward()
    sum(by_task(mine(packed), packed.sections)).backward()
    whole = mine.word.weight.grad
    assert torch.allclose(few.grad.sum(0) if tasks else few.grad, whole[rows], rtol=1e-5, atol=1e-4)
    assert not whole[torch.tensor([n for n in range(90) if n not in rows.tolist()])].any()


def test_bf16_autocast_is_near_fp32_with_and_without_banks() -> None:
    mine = ours(MODEL).train()
    packed = pack([torch.arange(length) for length in (40, 3, 17, 21, 8, 30)], (2, 4))
    exact = torch.autograd.grad(sum(by_task(mine(packed), (2, 4))), list(mine.parameters()))
    banks = banks_of(mine, 2)
    with torch.autocast("cpu", torch.bfloat16):
        plain, banked = mine(packed), functional_call(mine, banks, (packed,))
    assert plain.dtype == torch.float32 and torch.equal(plain, banked)
    sum(by_task(banked, (2, 4))).backward()
    low = torch.autograd.grad(sum(by_task(plain, (2, 4))), list(mine.parameters()))
    for (name, bank), rough, gradient in zip(banks.items(), low, exact, strict=True):
        assert bank.grad.dtype == torch.float32
        if not name.endswith("key.bias"):
            assert near(bank.grad.sum(0), gradient, 0.05) and near(rough, gradient, 0.05), name


# Dropout --------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_noise_has_its_rate_and_is_unbiased(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    made = ops.dropout_mask(torch.empty(1001, 999, dtype=dtype), p).float()
    dropped = made == 0
    assert abs(dropped.float().mean() - p) < 5 * (p * (1 - p) / made.numel()) ** 0.5 + 1 / 65536
    assert len(made.unique()) == 2
    assert abs(made.max() * (1 - p) - 1) < (1e-3 if dtype == torch.float32 else 1e-2)
    if dtype == torch.float32:
        assert abs(made.mean() - 1) < 5 * (p / (1 - p) / made.numel()) ** 0.5
    for part in (made[:, ::2], made[:, 1::2], made.flatten()[::4], made.flatten()[3::4]):  # each of a draw's numbers
        assert abs((part == 0).float().mean() - p) < 6 * (p * (1 - p) / part.numel()) ** 0.5 + 1 / 65536
    pairs = dropped.flatten()[:999_996].view(-1, 4).float()
    assert (torch.corrcoef(pairs.T) - torch.eye(4)).abs().max() < 0.012


def test_noise_follows_the_global_seed() -> None:
    like = torch.empty(7, 11)
    torch.manual_seed(3)
    first, second = ops.dropout_mask(like, 0.5), ops.dropout_mask(like, 0.5)
    torch.manual_seed(3)
    assert torch.equal(ops.dropout_mask(like, 0.5), first) and not torch.equal(first, second)


def test_no_dropout_is_the_identity_and_draws_nothing() -> None:
    x, packed = torch.randn(5, 6), pack([torch.arange(9), torch.arange(4)], (2,))
    training, resting = ours(MODEL).train(), ours(MODEL, dropout=0.5).eval()
    state = torch.get_rng_state()
    assert ops.dropout(x, 0.0) is x
    with torch.no_grad():
        assert torch.equal(training(packed), resting(packed))
    assert torch.equal(torch.get_rng_state(), state)


@torch.no_grad()
def test_dropout_acts_in_training_alone() -> None:
    mine, packed = ours(MODEL, dropout=0.1), pack([torch.arange(9), torch.arange(4)], (2,))
    assert not torch.equal(mine.train()(packed), mine(packed))
    assert torch.equal(mine.eval()(packed), mine(packed))


@torch.no_grad()
def test_dropout_on_attention_is_unbiased_and_has_its_rate() -> None:
    copies, length, width = 4000, 6, 8
    torch.manual_seed(2)
    q, k, v = (torch.randn(length, width).repeat(copies, 1) for _ in range(3))
    packed = pack([torch.zeros(length, dtype=torch.int64)] * copies, (copies,))
    grid = PackedLayout.of(packed, 2, CPU).rows
    clean = ops.attention(q, k, v, grid, grid, 0.0)
    noisy = ops.attention(q, k, v, grid, grid, 0.25).view(copies, length, width)
    deviation = noisy.std(0) / copies**0.5
    assert ((noisy.mean(0) - clean[:length]).abs() < 5 * deviation).all()
    shares = ops.attention(q, torch.zeros_like(k), torch.ones_like(v), grid, grid, 0.25)  # of 6 equal shares
    kept = (shares * 0.75 * length).round()
    assert abs(kept.mean() / length - 0.75) < 0.01


# The layout -----------------------------------------------------------------------------------------------------------

@settings(max_examples=60, deadline=None)
@given(batches(), st.sampled_from([1, 2, 12]))
def test_the_layout_puts_every_row_where_its_sentence_is(batch: Drawn, heads: int) -> None:
    packed = pack(*batch)
    layout, count = PackedLayout.of(packed, heads, CPU), int(packed.lengths.sum())
    assert len(layout.positions) % ROUND == 0 and 0 <= len(layout.positions) - count < ROUND
    sentences = torch.repeat_interleave(torch.arange(len(batch[0])), packed.lengths)
    rows = torch.stack([functional.pad(sentences, (0, len(layout.positions) - count), value=-1), layout.positions], 1)
    per_head = torch.cat([torch.cat([rows, torch.full((len(rows), 1), h)], 1) for h in range(heads)], 1).float()
    taken = layout.rows.take(layout.rows.put(per_head))
    assert torch.equal(taken[:count], per_head[:count]) and not taken[count:].any()
    assert len(layout.rows.shapes) <= 3 and sum(b for b, _ in layout.rows.shapes) == heads * len(batch[0])
    seen = []
    for block, mask in zip(layout.rows.split(layout.rows.put(per_head)), layout.rows.masks, strict=True):
        for places, real in zip(block, (mask == 0)[:, 0], strict=True):
            sentence, head = int(places[0, 0]), int(places[0, 2])
            length = int(real.sum())
            assert real[:length].all() and length == packed.lengths[sentence]
            assert torch.equal(places[:length, 1], torch.arange(length).float())
            assert (places[:length, 0] == sentence).all() and (places[:length, 2] == head).all()
            seen.append((sentence, head))
    assert sorted(seen) == [(s, h) for s in range(len(batch[0])) for h in range(heads)]
    *others, last = (int(part.sum()) for part in packed.lengths.split(packed.sections))
    assert layout.rows.tasks == (*others, last + len(layout.positions) - count)
    assert layout.first.tasks == packed.sections


def test_the_layout_pads_little() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 400)
    layout = PackedLayout.of(pack([torch.zeros(n, dtype=torch.int64) for n in lengths], (400,)), 12, CPU)
    needed = sum(12 * batch * length**2 for batch, length in ((b // 12, n) for b, n in layout.rows.shapes))
    assert needed < 0.6 * 12 * 400 * lengths.max() ** 2


# The part -------------------------------------------------------------------------------------------------------------


def test_an_encoder_from_scratch_has_the_sizes_that_were_asked_for() -> None:
    part = MinBert(**SIZES, max_length=20, intermediate=24, pooling="mean")
    tokenizer = part.tokenizer(data("some words here", "more words"), NOWHERE)
    mine = part.build(tokenizer, NOWHERE)
    shapes = {name: tuple(p.shape) for name, p in mine.named_parameters()}
    assert mine.width == 16 and len(mine.blocks) == 2 and "pooler.weight" not in shapes
    assert shapes["word.weight"] == (tokenizer.get_vocab_size(), 16) and shapes["position.weight"] == (20, 16)
    assert shapes["blocks.1.expand.weight"] == (24, 16)
    assert tokenizer.encode("unseen").tokens != ["[CLS]", "unseen", "[SEP]"]  # dev sentences make no vocabulary
    assert tokenizer.encode("words " * 99).ids[-1] == 3 and len(tokenizer.encode("words " * 99).ids) == 20


def test_weights_from_scratch_follow_the_seed() -> None:
    part = MinBert(**SIZES)
    tokenizer = part.tokenizer(data("some words here"), NOWHERE)
    made = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        made.append(part.build(tokenizer, NOWHERE).blocks[0].query.weight)
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])
    assert abs(float(made[0].detach().std()) - SIZES["width"] ** -0.5) < 0.05


@pytest.mark.parametrize(("fields", "said"), [
    ({"init": "scratch"}, "needs width, layers, attention_heads, vocabulary"),
    ({"init": "scratch", "width": 8, "layers": 1, "vocabulary": 99}, "needs attention_heads"),
    (SIZES | {"attention_heads": 3}, "3 attention heads do not divide the width 16"),
    (SIZES | {"init": "minilm-l6"}, "width, layers, attention_heads, vocabulary cannot be given"),
    ({"init": "minilm-l6", "intermediate": 8}, "intermediate cannot be given"),
    (SIZES | {"hidden_dropout": 1.0}, "hidden_dropout"),
])
def test_sizes_are_given_once(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        MinBert(**fields)


def test_a_small_encoder_learns_which_word_comes_first() -> None:
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    mine = Bert(Sizes(16, 2, 2, 32, vocabulary=12, positions=16), dropout=0.1)
    head = torch.nn.Linear(16, 1)
    optimizer = torch.optim.AdamW([*mine.parameters(), *head.parameters()], lr=3e-3)
    losses = []
    for _ in range(150):
        words = [np.append(2, random.integers(3, 12, random.integers(2, 12))) for _ in range(32)]
        labels = torch.tensor([float(w[1] > w[2]) for w in words])
        scores = head(mine(pack([torch.from_numpy(w) for w in words], (32,))))[:, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(scores, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[:10]) > 0.6 and np.mean(losses[-20:]) < 0.5


# Real weights ---------------------------------------------------------------------------------------------------------

SENTENCES = ["A man is playing a guitar.", "It 's a lovely film with lovely performances by Buy and Accorsi .", "",
             "What can you get as a customer of Star Alliance?", "no", "naïve 東京 " * 40]


def real(folder: str) -> list[str]:
    """Return 100 sentences of SST, 100 of STS and 4 long ones of CFIMDB."""
    def column(file: str, name: str, count: int) -> list[str]:
        table = pd.read_csv(Path(folder) / file, sep="\t")[name].dropna()
        return list(table[:: len(table) // count][:count])

    return [*column("ids-sst-dev.csv", "sentence", 100), *column("sts-dev.csv", "sentence1", 100),
            *column("ids-cfimdb-dev.csv", "sentence", 4)]


@pytest.mark.parametrize("source", ["given", "MTRUN_DATA"])
@torch.no_grad()
def test_minilm_equals_transformers_on_real_sentences(source: str) -> None:
    if source != "given" and not os.environ.get(source):
        pytest.skip("MTRUN_DATA is not set")
    texts = SENTENCES if source == "given" else real(os.environ[source])
    part = MinBert(init="minilm-l6")
    tokenizer = part.tokenizer(Data({}, {}), NOWHERE)
    ids = [torch.tensor(encoding.ids) for encoding in tokenizer.encode_batch(texts)]
    mine, packed = part.build(tokenizer, NOWHERE).eval(), pack(ids, (len(ids),))
    model = BertModel.from_pretrained(find("minilm-l6", NOWHERE).folder).eval()
    states, pooled = mine.hidden(packed).split(packed.lengths.tolist()), mine(packed)
    for sentence, state, embedding in zip(ids, states, pooled, strict=True):
        single = model(sentence[None])
        assert torch.allclose(state, single.last_hidden_state[0], atol=1e-4)
        assert torch.allclose(embedding, single.pooler_output[0], atol=1e-4)
    for start in range(0, len(ids), 16):
        some = padded(ids[start:start + 16])
        together = model(**some)
        mask = some["attention_mask"]
        assert torch.allclose(torch.cat(states[start:start + 16]), together.last_hidden_state[mask], atol=1e-4)
        assert torch.allclose(pooled[start:start + 16], together.pooler_output, atol=1e-4)


def test_the_tokens_of_a_suite_go_through_the_encoder(tmp_path: Path) -> None:
    part, suite = MinBert(**SIZES), data("some words here", "more words", "here")
    tokenizer = part.tokenizer(suite, NOWHERE)
    table = tokens.Tokens.of(suite.splits, tokenizer, tmp_path)
    packed = table.pack(table.rows(["here", "some words here", "words"]), (1, 2))
    embeddings = part.build(tokenizer, NOWHERE).eval()(packed)
    assert embeddings.shape == (3, 16) and embeddings.isfinite().all()
