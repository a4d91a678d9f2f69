"""Two sentences read as one: transformers' BERT with token types, gradients of each task, every way to a prediction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bert_cases import DOUBLE, MODEL, NOWHERE, SIZES, banks_of, batches, by_task, data, near, ours, pack, padded, peer
from builds import built, names
from gradients import expected, gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from projects import project
from torch import Tensor
from torch.func import functional_call
from train_runs import digest, resumed, whole
from transformers import BertConfig, BertModel

from runner.errors import SpecError
from runner.inference.system import System
from runner.parts.combiners.pcgrad import PCGrad
from runner.parts.encoders import Packed
from runner.parts.encoders.bert.architectures import ARCHITECTURES
from runner.parts.encoders.minbert import MinBert
from runner.parts.heads.cross import Cross
from runner.parts.losses.mse import SquaredError
from runner.plan.plan import Plan
from runner.plan.planner import make_plan
from runner.specs.loader import Loader
from runner.tasks.data import Examples, Task
from runner.tasks.predictions import aligned
from runner.training.stored_model import StoredModel
from runner.training.trainer import Trainer
from runner.worker.worker import trainer_of

CROSS = '[heads.paraphrase]\ntype = "cross"\nloss = "bce"\n'
MIXED = f'kind = "model"\nextends = "sum.toml"\n[encoder]\nsegments = 2\n{CROSS}'
BOTH = MIXED + '[heads.similarity]\ntype = "cross"\nloss = "mse"\n'
SPECS = {
    "mixed": MIXED, "both": BOTH, "even": MIXED + "symmetric = true\n",
    "fast": 'kind = "model"\nextends = "mixed.toml"\n[optimizer]\nlr_scale = 3.0\n',
    "soup": 'kind = "soup"\nmembers = ["mixed.toml", "fast.toml"]\n',
    "student": 'kind = "model"\nextends = "sum.toml"\n[teacher]\nspec = "mixed.toml"\n',
    "pupil": 'kind = "model"\nextends = "both.toml"\n[teacher]\nspec = "sum.toml"\n',
    "all": 'kind = "ensemble"\n[tree]\ntype = "average"\nmembers = ["both.toml", "soup.toml", "student.toml", '
           '"pupil.toml", "even.toml"]\n',
}


# The encoder ---------------------------------------------------------------------------------------------------------

def twofold(batch: tuple[list[Tensor], tuple[int, ...]]) -> tuple[Packed, Tensor]:
    """Return a pack with every other sentence cut in two segments somewhere, and the token types of transformers."""
    packed = pack(*batch)
    firsts = packed.lengths.clone()
    firsts[::2] = (firsts[::2] + 1) // 2
    kinds = torch.arange(int(packed.lengths.max())) >= firsts[:, None]
    return replace(packed, firsts=firsts), kinds.long()


@settings(max_examples=20, deadline=None)
@given(batches(), st.sampled_from(["pooler", "cls", "mean"]))
def test_embeddings_and_gradients_are_those_of_token_types(batch: tuple[list[Tensor], tuple[int, ...]],
                                                           pooling: str) -> None:
    packed, kinds = twofold(batch)
    for model, limit in ((MODEL, 1e-4), (DOUBLE, 1e-10)):
        mine, inputs = ours(model, pooling).train(), padded(batch[0])
        out, mask = model(**inputs, token_type_ids=kinds), inputs["attention_mask"][..., None]
        states = out.last_hidden_state
        theirs = {"pooler": out.pooler_output, "cls": states[:, 0], "mean": (states * mask).sum(1) / mask.sum(1)}
        embeddings = mine(packed)
        assert torch.allclose(embeddings, theirs[pooling], atol=limit)
        assert torch.allclose(mine.hidden(packed), states[inputs["attention_mask"]], atol=limit)
        segments = [torch.autograd.grad(made.square().sum(), table)[0] for made, table in (
            (embeddings, mine.segment.weight), (theirs[pooling], model.embeddings.token_type_embeddings.weight))]
        assert near(*segments, limit) and (len(batch[0]) < 2 or segments[0][0].any())


@settings(max_examples=8, deadline=None)
@given(batches())
def test_banks_hold_each_tasks_gradient_of_the_segments_too(batch: tuple[list[Tensor], tuple[int, ...]]) -> None:
    mine, (packed, _) = ours(DOUBLE).train(), twofold(batch)
    banks = banks_of(mine, len(packed.sections))
    sum(by_task(functional_call(mine, banks, (packed,)), packed.sections)).backward()
    for number, loss in enumerate(by_task(mine(packed), packed.sections)):
        wanted = torch.autograd.grad(loss, list(mine.parameters()), retain_graph=True)
        for (name, bank), gradient in zip(banks.items(), wanted, strict=True):
            limit = 1e-9 * float(gradient.norm()) + 1e-12
            assert torch.allclose(bank.grad[number], gradient, rtol=1e-9, atol=limit), name


@torch.no_grad()
def test_with_one_segment_embedding_there_is_one_for_all() -> None:
    model = peer(type_vocab_size=1).eval()
    batch = ([torch.arange(9), torch.arange(40), torch.arange(5, 9)], (1, 2))
    packed, _ = twofold(batch)
    assert torch.equal(ours(model).eval()(packed), ours(model).eval()(pack(*batch)))


def test_an_encoder_from_scratch_has_the_segments_that_were_asked_for() -> None:
    for given_, rows in ((None, 1), (1, 1), (2, 2)):
        part = MinBert(**SIZES, segments=given_)
        made = part.build(part.tokenizer(data("some words"), NOWHERE), NOWHERE)
        assert made.segment.weight.shape == (rows, 16)
    with pytest.raises(ValueError, match="segments cannot be given"):
        MinBert(init="minilm-l6", segments=2)
    assert "segments" not in MinBert(**SIZES).canonical()


# The head and its training -------------------------------------------------------------------------------------------

def test_the_head_is_a_linear_layer_that_begins_at_the_middle() -> None:
    head, task = Cross(loss=SquaredError()), Task(title="c", kind="regression", low=0.0, high=5.0, sentences=2)
    layers, embeddings = head.build(4, task), torch.randn(6, 4)
    torch.testing.assert_close(head.scores(layers, (embeddings,)), embeddings @ layers.weight.T + 2.5)


def test_a_task_of_one_sentence_has_no_use_for_it(tmp_path: Path) -> None:
    root = project(tmp_path, wrong=SPECS["mixed"].replace("heads.paraphrase", "heads.sentiment"))
    with pytest.raises(SpecError, match="the head `cross` takes 2 sentences, but an example of `sentiment` has 1"):
        Loader(root, "demo").load(root / "specs" / "wrong.toml")


def trainer(root: Path, spec: str, *given_: str) -> Trainer:
    dry = ["encoder.dropout=0.0", "encoder.hidden_dropout=0.0", "encoder.layers=2", *given_]
    (node,) = Loader(root, "demo", dry).load(root / "specs" / f"{spec}.toml")
    return trainer_of(node.model, node.model.suite.load(root), root, root / "cache")


@pytest.mark.parametrize("spec", ["mixed", "both"])
def test_each_step_has_the_gradients_of_the_definition(tmp_path: Path, spec: str) -> None:
    run = trainer(project(tmp_path, **SPECS), spec)
    for step in range(2):
        batch = run.batches.batch(step)
        assert batch.packed.sections == ((8, 8, 16) if spec == "mixed" else (8, 8, 8))
        wanted = expected(run, PCGrad(), step)
        for parts in (1, 3):
            run.network.clear()
            run.network.backward(batch, PCGrad(), np.random.default_rng(3), parts)
            for name, gradient in gradients(run).items():
                assert float((gradient - wanted[name]).norm()) <= 1e-4 * float(wanted[name].norm()) + 1e-6, name
        assert wanted["encoder.segment.weight"].all()


def test_stopped_and_resumed_is_the_same_to_the_bit(tmp_path: Path) -> None:
    root, cross = project(tmp_path), ["heads.paraphrase={type='cross',loss='bce'}", "encoder.segments=2"]
    wanted, predictions, ticks = whole(root, *cross, "combiner=pcgrad")
    assert wanted.model.joint == {"paraphrase": 1}
    run, again = resumed(root, [ticks // 3, ticks // 3], *cross, "combiner=pcgrad")
    assert digest(run) == digest(wanted) and again == predictions


# Every way to a prediction -------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of which all is built: a model, one with two such heads, a soup, and students of and with them."""
    made = project(tmp_path_factory.mktemp("cross"), **SPECS)
    events = built(made, "all")
    assert events[-1].values["failed"] == 0
    assert {"both", "mixed", "fast", "soup", "student", "pupil", "even"} <= set(names(events, "trained"))
    return made


def planned(root: Path, spec: str) -> Plan:
    return make_plan(root, [root / "specs" / f"{spec}.toml"], "demo")


def leaf(root: Path, spec: str) -> tuple[StoredModel, Plan]:
    plan = planned(root, spec)
    run = plan.registry.find(plan.roots[spec])
    assert run
    return StoredModel.of(run, plan.data[plan.nodes[plan.roots[spec]].suite], root), plan


@torch.no_grad()
def definition(one: StoredModel, task: str, examples: Examples) -> np.ndarray:
    """Scores by transformers' model on what the tokenizer makes of pairs."""
    encoder, layers = one.network.encoder, one.network.heads[task]
    peer = BertModel(BertConfig(vocab_size=len(encoder.word.weight), hidden_size=16, num_hidden_layers=1,
                                num_attention_heads=2, intermediate_size=64, type_vocab_size=2)).eval()
    their_name = ARCHITECTURES["bert"].their_name
    peer.load_state_dict({their_name(name): value for name, value in encoder.state_dict().items()})
    found = []
    for pair in zip(examples.first, examples.second, strict=True):
        encoded = one.tokenizer.encode(*pair)
        ids, kinds = (torch.tensor([numbers]) for numbers in (encoded.ids, encoded.type_ids))
        found.append(peer(ids, token_type_ids=kinds).pooler_output @ layers.weight.T + layers.bias)
    return torch.cat(found).numpy()


@pytest.mark.parametrize(("spec", "task"), [("mixed", "paraphrase"), ("both", "similarity"), ("soup", "paraphrase"),
                                            ("pupil", "similarity")])
def test_what_is_stored_is_what_the_definition_says(root: Path, spec: str, task: str) -> None:
    one, plan = leaf(root, spec)
    stored = plan.registry.find(plan.roots[spec]).predictions()
    for split in ("dev", "test"):
        examples = plan.data[plan.nodes[plan.roots[spec]].suite].splits[task][split]
        scores = aligned(stored.outputs[split][task], examples)
        np.testing.assert_allclose(scores, definition(one, task, examples), atol=1e-4)
    assert np.ptp(scores) > 1e-3


@pytest.mark.parametrize("spec", ["all", "both"])
def test_new_sentences_are_read_as_one_too(root: Path, spec: str) -> None:
    plan = planned(root, spec)
    system = System(plan, plan.roots[spec])
    texts = ("Is it late?", "", "A fine film. " * 400, "Is it late?")
    asked = Examples(tuple("abcd"), texts, texts[::-1])
    said = system.predict({"paraphrase": asked, "similarity": asked})
    both, _ = leaf(root, "both")
    for task in ("paraphrase", "similarity"):
        scores = said[planned(root, "both").roots["both"]].outputs["test"][task].scores
        np.testing.assert_allclose(scores, definition(both, task, asked), atol=1e-4)
    assert not np.allclose(scores[1], scores[2], atol=1e-6), "the order of two sentences counts"


def test_a_student_learns_from_what_is_said_of_both_sentences(root: Path) -> None:
    """The teacher's scores of the training pairs are cached; they are those of the definition."""
    from safetensors.numpy import load_file

    one, plan = leaf(root, "mixed")
    train = plan.data[plan.nodes[plan.roots["mixed"]].suite].splits["paraphrase"]["train"]
    wanted = definition(one, "paraphrase", train)
    found = [load_file(file) for file in (root / "registry" / ".cache").glob("teaching-*")]
    close = [np.allclose(scores["paraphrase"], wanted, atol=1e-4) for scores in found]
    assert len(found) == 2 and sum(close) == 1


# In any order --------------------------------------------------------------------------------------------------------

def swapped(examples: Examples) -> Examples:
    return replace(examples, first=examples.second, second=examples.first)


def test_a_symmetric_head_says_the_mean_of_both_orders(root: Path) -> None:
    one, plan = leaf(root, "even")
    suite = plan.data[plan.nodes[plan.roots["even"]].suite]
    stored = plan.registry.find(plan.roots["even"]).predictions()
    for split in ("dev", "test"):
        examples = suite.splits["paraphrase"][split]
        there, back = (definition(one, "paraphrase", part) for part in (examples, swapped(examples)))
        said = aligned(stored.outputs[split]["paraphrase"], examples)
        np.testing.assert_allclose(said, (there + back) / 2, atol=1e-4)
        assert not np.allclose(there, back, atol=1e-3), "each order alone says something else"


def test_a_symmetric_head_trains_on_an_order_drawn_for_each_example_and_step(tmp_path: Path) -> None:
    root = project(tmp_path, **SPECS)
    run = trainer(root, "even")
    pairs = run.data.splits["paraphrase"]["train"]
    known = {reading: row for reading, row in run.batches.tokens.numbers.items() if isinstance(reading, tuple)}
    there = [known[pair] for pair in zip(pairs.first, pairs.second, strict=True)]
    back = [known[pair] for pair in zip(pairs.second, pairs.first, strict=True)]
    index, drawn = np.arange(len(pairs)), []
    for step in range(40):
        (read,) = run.batches._rows("paraphrase", index, step)
        assert all(row in pair for row, pair in zip(read, zip(there, back, strict=True), strict=True))
        drawn.append(read == there)
    share = np.mean(drawn, axis=0)
    assert share.min() > 0.1 and share.max() < 0.9, "no example is always read in one order"
    (again,) = trainer(root, "even").batches._rows("paraphrase", index, 7)
    assert np.array_equal(again == there, drawn[7])
    assert run.batches.batch(0).packed.sections == trainer(root, "mixed").batches.batch(0).packed.sections


def test_a_symmetric_run_that_stopped_ends_with_the_same_bytes(tmp_path: Path) -> None:
    root, cross = project(tmp_path), ["heads.paraphrase={type='cross',loss='bce',symmetric=true}", "encoder.segments=2"]
    wanted, predictions, ticks = whole(root, *cross)
    run, again = resumed(root, [ticks // 2], *cross)
    assert digest(run) == digest(wanted) and again == predictions
