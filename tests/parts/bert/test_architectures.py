"""BERT-like encoders compute what transformers does: token ids, states, gradients; banks hold those of each task."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from bert_cases import NOWHERE, banks_of, by_task
from pydantic import ValidationError
from runs import planned
from safetensors.torch import load_file
from systems import mtrun
from tiny_models import MODELS, encoded, save
from torch import Tensor
from torch.func import functional_call
from train_runs import digest, resumed, trainer, whole
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel

from runner.errors import CheckpointError, SpecError, TrainingError
from runner.parts.encoders import Packed
from runner.parts.encoders.bert import split_zip
from runner.parts.encoders.bert.architectures import ARCHITECTURES, config_of, sizes_of
from runner.parts.encoders.bert.checkpoints import NAMED, find
from runner.parts.encoders.minbert import MinBert
from runner.tasks.data import Examples
from runner.training import masked_lm
from runner.training.stored_model import StoredModel
from runner.training.tokens import Tokens

TEXTS = ("the cat", "a good film , is n't it !", "zebras", "The films, films and films going on.", "ù é <weird> 12 ,",
         "on and on " * 30)
SECTIONS = (2, 1, 3)


@pytest.fixture(scope="module", params=sorted(MODELS))
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PreTrainedModel]:
    """Folder and model of each architecture."""
    folder = tmp_path_factory.mktemp(request.param)
    return folder, save(folder, request.param)


def part(folder: Path, pooling: str = "mean", **fields: Any) -> MinBert:
    return MinBert(init=str(folder), **{"max_length": 40, "pooling": pooling, "hidden_dropout": 0.0, **fields})


def load(folder: Path, pooling: str = "mean", **fields: Any) -> tuple[Tokens, torch.nn.Module]:
    mine = part(folder, pooling, **fields)
    mine.check(NOWHERE)
    tokenizer = mine.tokenizer(None, NOWHERE)
    examples = Examples(tuple(TEXTS), TEXTS, TEXTS[::-1])
    return Tokens.of({"x": {"dev": examples}}, tokenizer, joint={"x": 1}), mine.build(tokenizer, NOWHERE)


def packed(tokens: Tokens, readings: Any = TEXTS) -> Packed:
    return tokens.pack(tokens.rows(readings), SECTIONS)


def theirs(model: PreTrainedModel, batch: Packed) -> tuple[Tensor, Tensor]:
    """Return their hidden states [N, width] and the means of sentences [S, width], from a padded batch."""
    sentences = batch.tokens.split_with_sizes(batch.lengths.tolist())
    pad = model.config.pad_token_id
    ids = torch.nn.utils.rnn.pad_sequence(list(sentences), batch_first=True, padding_value=pad)
    mask = torch.arange(ids.shape[1]) < batch.lengths[:, None]
    states = model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    return states[mask], (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def test_token_ids_are_those_of_transformers(made: tuple[Path, PreTrainedModel]) -> None:
    folder, _ = made
    tokens, _ = load(folder)
    their = AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        row = tokens.rows([text])
        ids = tokens.pack(row, (1,)).tokens.tolist()
        assert ids == their(text, truncation=True, max_length=40)["input_ids"]
    for pair in zip(TEXTS, TEXTS[::-1], strict=True):
        ids = tokens.pack(tokens.rows([pair]), (1,)).tokens.tolist()
        assert ids == their(*pair, truncation=True, max_length=40)["input_ids"]


def test_hidden_states_and_gradients_are_those_of_transformers(made: tuple[Path, PreTrainedModel]) -> None:
    folder, model = made
    tokens, mine = load(folder)
    batch = packed(tokens)
    states, means = theirs(model, batch)
    assert torch.allclose(mine.hidden(batch), states, rtol=1e-5, atol=1e-5)
    assert torch.allclose(mine(batch), means, rtol=1e-5, atol=1e-5)
    torch.manual_seed(2)
    factors = torch.randn_like(means)
    model.zero_grad()
    (means * factors).sum().backward()
    (mine(batch) * factors).sum().backward()
    expected, kind = {name: p.grad for name, p in model.named_parameters()}, ARCHITECTURES[model.config.model_type]
    rounding = 1e-7 * torch.stack([g.norm() for g in expected.values() if g is not None]).norm()
    names = dict(mine.named_parameters())
    for name, parameter in names.items():
        other = expected[kind.their_name(name)]
        assert (parameter.grad - other).norm() <= 1e-5 * other.norm() + rounding, name
    unused = {kind.their_name(f"pooler.{part}") for part in ("weight", "bias")}
    assert {kind.their_name(name) for name in names} == expected.keys() - unused


def pooled(states: Sequence[Tensor], pooling: str, encoder: torch.nn.Module) -> Tensor:
    """Return the embedding of each sentence from its states [tokens, width], by definition."""
    if pooling == "attention":
        weight, bias = (encoder.get_parameter(f"attention.{part}") for part in ("weight", "bias"))
        return torch.stack([((each @ weight[0] + bias).softmax(0)[:, None] * each).sum(0) for each in states])
    by = {"cls": lambda each: each[0], "last": lambda each: each[-1], "mean": lambda each: each.mean(0),
          "max": lambda each: each.amax(0)}[pooling]
    return torch.stack([by(each) for each in states])


@pytest.mark.parametrize("averaged", [1, 3])
@pytest.mark.parametrize("pooling", ["cls", "last", "mean", "max", "attention"])
def test_pooling_is_what_its_name_says(made: tuple[Path, PreTrainedModel], pooling: str, averaged: int) -> None:
    folder, model = made
    tokens, mine = load(folder, pooling, averaged_layers=averaged)
    if pooling == "attention":
        means = load(folder, "mean", averaged_layers=averaged)[1]
        assert torch.allclose(mine(packed(tokens)), means(packed(tokens)), rtol=1e-5, atol=1e-5), "it begins as a mean"
        torch.nn.init.normal_(mine.attention.weight)
    batch = packed(tokens)
    with torch.no_grad():
        layers = [model(input_ids=ids[None], output_hidden_states=True).hidden_states[-averaged:]
                  for ids in batch.tokens.split_with_sizes(batch.lengths.tolist())]
        states = [torch.stack(each).mean(0)[0] for each in layers]
        assert torch.allclose(mine(batch), pooled(states, pooling, mine), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("pooling", ["last", "max", "attention", "cls"])
def test_banks_with_other_poolings_and_several_layers(made: tuple[Path, PreTrainedModel], pooling: str) -> None:
    tokens, mine = load(made[0], pooling, averaged_layers=2)
    if pooling == "attention":
        torch.nn.init.normal_(mine.attention.weight)
    compare_banks(mine.double(), packed(tokens))


def test_the_state_of_the_first_token_needs_only_its_row_of_the_last_layer(made: tuple[Path, PreTrainedModel]) -> None:
    folder, model = made
    tokens, mine = load(folder, "cls")
    batch = packed(tokens)
    starts = batch.lengths.cumsum(0) - batch.lengths
    assert torch.allclose(mine(batch), theirs(model, batch)[0][starts], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_banks_equal_separate_backward_passes(made: tuple[Path, PreTrainedModel], pooling: str) -> None:
    tokens, mine = load(made[0], pooling)
    compare_banks(mine.double(), packed(tokens))


def compare_banks(mine: torch.nn.Module, batch: Packed) -> None:
    """Compare the gradients of each task from one backward pass with those from one pass for each task."""
    banks = banks_of(mine, len(SECTIONS))
    sum(by_task(functional_call(mine, banks, (batch,)), SECTIONS)).backward()
    for number, loss in enumerate(by_task(mine(batch), SECTIONS)):
        expected = torch.autograd.grad(loss, list(mine.parameters()), retain_graph=True)
        for (name, bank), gradient in zip(banks.items(), expected, strict=True):
            limit = 1e-9 * float(gradient.norm()) + 1e-12
            assert torch.allclose(bank.grad[number], gradient, rtol=1e-9, atol=limit), name


def test_pooler_where_there_is_one(made: tuple[Path, PreTrainedModel]) -> None:
    folder, model = made
    if ARCHITECTURES[model.config.model_type].has_pooler:
        tokens, mine = load(folder, "pooler")
        with torch.no_grad():
            for text, embedding in zip(TEXTS, mine(packed(tokens)), strict=True):
                ids = tokens.pack(tokens.rows([text]), (1,)).tokens[None]
                assert torch.allclose(model(input_ids=ids).pooler_output[0], embedding, rtol=1e-5, atol=1e-5)
    else:
        with pytest.raises(CheckpointError, match="has no pooler") as caught:
            part(folder, "pooler").check(NOWHERE)
        assert 'pooling = "mean"' in caught.value.problems[0].hint


def test_a_sentence_may_have_as_many_tokens_as_there_are_positions(made: tuple[Path, PreTrainedModel]) -> None:
    folder, _ = made
    part(folder).check(NOWHERE)
    with pytest.raises(CheckpointError, match="`max_length` is 41") as caught:
        part(folder, max_length=41).check(NOWHERE)
    assert caught.value.problems[0].hint == "max_length = 40"


def test_the_configuration_comes_back(made: tuple[Path, PreTrainedModel]) -> None:
    sizes, wrong = sizes_of(made[1].config.to_dict())
    assert sizes is not None and not wrong
    assert sizes_of(config_of(sizes)) == (sizes, [])


@pytest.mark.parametrize("name", ["electra", "mpnet", "roberta"])
def test_stopped_and_resumed_is_the_same_to_the_bit(tmp_path: Path, name: str) -> None:
    save(tmp_path / "weights", name)
    root = encoded(tmp_path, "minbert", pooling='"mean"')
    settings = ("combiner=pcgrad", "train.steps=3", 'optimizer.layer_decay=0.9')
    wanted, predictions, ticks = whole(root, *settings)
    assert wanted.network.encoder.sizes.architecture == name
    run, again = resumed(root, [ticks // 3, ticks // 3], *settings)
    assert digest(run) == digest(wanted) and again == predictions


def test_byte_level_bpe_in_the_files_of_older_models(tmp_path: Path) -> None:
    save(tmp_path, "roberta")
    tokens, _ = load(tmp_path)
    model = json.loads((tmp_path / "tokenizer.json").read_text())["model"]
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no tokenizer\.json \(or vocab\.json and merges\.txt\)"):
        part(tmp_path).check(NOWHERE)
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{' '.join(pair)}\n" for pair in model["merges"]))
    again, _ = load(tmp_path)
    assert again.ids.tolist() == tokens.ids.tolist() and len(tokens.ids) > 100
    assert sorted(part(tmp_path).inputs(NOWHERE)) == [
        "config.json", "merges.txt", "model.safetensors", "tokenizer_config.json", "vocab.json"]


@pytest.mark.parametrize("name", ["mpnet", "roberta", "xlm-roberta"])
def test_the_treebank_is_undone_beside_punctuation_too(tmp_path: Path, name: str) -> None:
    save(tmp_path, name)
    ids = [part(tmp_path, treebank=treebank).tokenizer(None, NOWHERE).encode(text).ids for treebank, text in (
        (True, "the film is n't good , -LRB- the cat -RRB- !"), (False, "the film isn't good, (the cat)!"))]
    assert ids[0] == ids[1]


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_leaf_is_built_predicts_and_is_exported_to_transformers(tmp_path: Path, name: str) -> None:
    save(tmp_path / "weights", name)
    root = encoded(tmp_path, "minbert", pooling='"mean"')
    assert mtrun(root, "build", "specs/sum.toml", "--executor", "inline", "-q").code == 0
    done = mtrun(root, "predict", "specs/sum.toml", "the cat", "--format", "json")
    assert done.code == 0 and json.loads(done.out.splitlines()[0])
    assert mtrun(root, "export", "specs/sum.toml", "-o", str(root / "bundle")).code == 0
    folder = root / "bundle" / "transformers"
    model, their = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    assert model.config.model_type == name
    plan = planned(root, "sum")
    (node,) = plan.nodes.values()
    run = plan.registry.find(node.id)
    assert run
    stored = StoredModel.of(run, plan.data[node.suite], root)
    exported = part(folder, max_length=40)
    exported.check(NOWHERE)
    tokenizer = exported.tokenizer(None, NOWHERE)
    again = exported.build(tokenizer, NOWHERE).eval()
    for text in TEXTS:
        inputs = their(text, truncation=True, max_length=40, return_tensors="pt")
        ids = stored.tokenizer.encode(text).ids
        assert inputs["input_ids"][0].tolist() == ids == tokenizer.encode(text).ids
        batch = Packed(torch.tensor(ids), torch.tensor([len(ids)]), (1,))
        with torch.no_grad():
            embedding = stored.network.embed(batch, ("sentiment",))
            assert torch.allclose(model(**inputs).last_hidden_state.mean(1), embedding, rtol=1e-5, atol=1e-5)
            assert torch.equal(again(batch), embedding)
    (tmp_path / "weights").rename(tmp_path / "elsewhere")  # as on the machine of somebody who has no such folder
    assert mtrun(tmp_path, "import", str(root / "bundle"), "new").code == 0
    assert mtrun(tmp_path / "new", "table").out == mtrun(root, "table").out != ""


def course_sentences() -> list[str]:
    """Return 200 sentences of each data set of the course."""
    files = (("ids-sst-dev.csv", "sentence"), ("quora-dev.csv", "sentence1"), ("sts-dev.csv", "sentence2"))
    tables = [pd.read_csv(Path(os.environ["MTRUN_DATA"]) / file, sep="\t")[name].dropna() for file, name in files]
    return [text for table in tables for text in table[::len(table) // 200][:200]]


@pytest.mark.parametrize("source", ["given", pytest.param("MTRUN_DATA", marks=pytest.mark.long)])
@torch.no_grad()
def test_mpnet_base_embeds_sentences_as_sentence_transformers_does(source: str) -> None:
    try:
        split_zip.parts(NAMED["mpnet-base"].parts)
        from sentence_transformers import SentenceTransformer
    except (CheckpointError, ImportError) as error:
        pytest.skip(f"the packages of mpnet-base or sentence-transformers are not installed: {error}")
    if source == "MTRUN_DATA" and not os.environ.get("MTRUN_DATA"):
        pytest.skip("MTRUN_DATA is not set")
    sentences = list(TEXTS) if source == "given" else course_sentences()
    mine = MinBert(init="mpnet-base", pooling="mean", hidden_dropout=0.0, max_length=384)
    tokenizer = mine.tokenizer(None, NOWHERE)
    tokens = Tokens.of({"x": {"dev": Examples(tuple(sentences), tuple(sentences))}}, tokenizer)
    encoder = mine.build(tokenizer, NOWHERE).eval()
    parts = [tokens.rows(sentences[start:start + 50]) for start in range(0, len(sentences), 50)]
    embeddings = torch.cat([encoder(tokens.pack(rows, (len(rows),))) for rows in parts])
    theirs = [*SentenceTransformer(str(find("mpnet-base", NOWHERE).folder), device="cpu")]
    their = SentenceTransformer(modules=theirs[:2], device="cpu")  # without the division by the norm
    their.max_seq_length = 384
    expected = their.encode(sentences, convert_to_tensor=True)
    norms = [torch.nn.functional.normalize(each, dim=1) for each in (embeddings, expected)]
    assert torch.allclose(*norms, rtol=0, atol=1e-5)
    assert torch.allclose(embeddings, expected, rtol=1e-4, atol=1e-5)


# The Hugging Face hub ------------------------------------------------------------------------------------------------

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of a repository in the hub's cache, whose main branch is at `COMMIT`; nothing is downloaded."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    folder = tmp_path / "hub" / "models--someone--tiny-mpnet"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    return folder


def test_a_repository_of_the_hub_needs_a_commit_and_the_hint_has_it(hub: Path) -> None:
    with pytest.raises(CheckpointError, match="needs `revision`") as caught:
        MinBert(init="someone/tiny-mpnet", pooling="mean", max_length=40).check(NOWHERE)
    assert caught.value.problems[0].hint == f'revision = "{COMMIT}"'
    with pytest.raises(CheckpointError, match="needs `revision`") as caught:
        MinBert(init="someone/other").check(NOWHERE)
    assert "huggingface.co/someone/other/commits/main" in caught.value.problems[0].hint
    for init in ("minilm-l6", "scratch", "/folder/of/weights"):
        with pytest.raises(ValidationError, match="`revision` is for a repository of the hub"):
            MinBert(init=init, revision=COMMIT)
    with pytest.raises(ValidationError, match="revision"):
        MinBert(init="someone/tiny-mpnet", revision="main")


def test_weights_in_the_cache_of_the_hub_are_those_of_the_folder(hub: Path, tmp_path: Path) -> None:
    save(tmp_path / "weights", "mpnet")
    there = MinBert(init="someone/tiny-mpnet", revision=COMMIT, pooling="mean", max_length=40, hidden_dropout=0.0)
    there.check(NOWHERE)  # not on this machine yet
    with pytest.raises(CheckpointError, match="huggingface_hub is not installed"):
        there.tokenizer(None, NOWHERE)
    (hub / "snapshots").mkdir()
    (tmp_path / "weights").rename(hub / "snapshots" / COMMIT)
    there.check(NOWHERE)
    with pytest.raises(CheckpointError, match="`max_length` is 41"):
        there.model_copy(update={"max_length": 41}).check(NOWHERE)
    tokenizer = there.tokenizer(None, NOWHERE)
    _, expected = load(hub / "snapshots" / COMMIT)
    made = there.build(tokenizer, NOWHERE).state_dict()
    assert all(torch.equal(made[name], tensor) for name, tensor in expected.state_dict().items())
    assert there.inputs(NOWHERE) == {"someone/tiny-mpnet": COMMIT}
    assert there.canonical() == part(hub / "snapshots" / COMMIT).canonical()


def test_weights_that_are_not_in_the_cache_are_downloaded(
        hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "weights", "mpnet")
    asked = []

    def snapshot_download(repository: str, revision: str, allow_patterns: list[str]) -> str:
        asked.append((repository, revision, "model.safetensors" in allow_patterns, "*.py" in allow_patterns))
        shutil.copytree(tmp_path / "weights", hub / "snapshots" / revision)
        return str(hub / "snapshots" / revision)

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download))
    there = MinBert(init="someone/tiny-mpnet", revision=COMMIT, pooling="mean", max_length=40)
    for _ in range(2):
        assert there.tokenizer(None, NOWHERE).get_vocab_size() > 60
    assert asked == [("someone/tiny-mpnet", COMMIT, True, False)]


def test_learned_weights_of_the_pooling_are_exported_beside_the_heads(tmp_path: Path) -> None:
    save(tmp_path / "weights", "distilbert")
    root = encoded(tmp_path, "minbert", pooling='"attention"')
    assert mtrun(root, "build", "specs/sum.toml", "--executor", "inline", "-q").code == 0
    assert mtrun(root, "export", "specs/sum.toml", "-o", str(root / "bundle")).code == 0
    folder = root / "bundle" / "transformers"
    heads = load_file(folder / "heads.safetensors")
    assert heads["encoder.attention.weight"].shape == (1, 32) and heads["encoder.attention.weight"].any()
    _, report = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]


def test_words_that_are_too_narrow_or_without_a_mask_cannot_be_predicted(tmp_path: Path) -> None:
    for name in ("electra", "mpnet", "roberta"):
        save(tmp_path / name / "weights", name)
    root = encoded(tmp_path / "electra", "minbert", pooling='"mean"')
    with pytest.raises(SpecError, match="as wide as the encoder, 32; these are 20 wide"):
        trainer(root, "regularizer=masked")
    root = encoded(tmp_path / "mpnet", "minbert", pooling='"mean"')
    network = trainer(root, "regularizer=masked").network
    assert network.encoder.mask == AutoTokenizer.from_pretrained(tmp_path / "mpnet" / "weights").mask_token_id
    text = (tmp_path / "roberta" / "weights" / "tokenizer.json").read_text()
    (tmp_path / "roberta" / "weights" / "tokenizer.json").write_text(text.replace("<mask>", "<other>"))
    root = encoded(tmp_path / "roberta", "minbert", pooling='"mean"')
    with pytest.raises(TrainingError, match=r"needs a token \[MASK\]"):
        trainer(root, "regularizer=masked")


def test_no_separator_is_masked(made: tuple[Path, PreTrainedModel]) -> None:
    tokens, _ = load(made[0])
    pairs = list(zip(TEXTS, TEXTS[::-1], strict=True))
    batch = tokens.pack(tokens.rows(pairs), SECTIONS)
    their = AutoTokenizer.from_pretrained(made[0])
    special = their.cls_token_id, their.sep_token_id
    words = [number for number, id in enumerate(batch.tokens.tolist()) if id not in special]
    assert masked_lm.select(batch, 1.0).tolist() == words


def test_a_tree_mixes_encoders(tmp_path: Path) -> None:
    for name in ("mpnet", "roberta", "bert"):
        save(tmp_path / name, name)
    save(tmp_path / "weights", "electra")
    root = encoded(tmp_path, "minbert", pooling='"mean"')
    for name, kind in (("mpnet", "minbert"), ("roberta", "minbert"), ("bert", "hf")):
        (root / "specs" / f"{name}.toml").write_text(
            f'kind = "model"\nextends = "sum.toml"\n[encoder]\ntype = "{kind}"\ninit = "{tmp_path / name}"\n'
            'pooling = "mean"\nmax_length = 40\n')
    (root / "specs" / "all.toml").write_text(
        'kind = "ensemble"\n[tree]\ntype = "average"\n'
        'members = ["sum.toml", "mpnet.toml", "roberta.toml", "bert.toml"]\n')
    assert mtrun(root, "build", "specs/all.toml", "--executor", "inline", "-q").code == 0
    done = mtrun(root, "predict", "specs/all.toml", "the cat", "--task", "sentiment", "--format", "json")
    assert done.code == 0
    plan = planned(root, "all")
    runs = [run for id in plan.nodes if (run := plan.registry.find(id))]
    outputs = [run.predictions().outputs["test"]["similarity"].scores for run in runs]
    assert len(outputs) == 4 and len({output.tobytes() for output in outputs}) == 4
    result = json.loads((root / "results" / "demo" / "all.json").read_bytes())
    assert len(result["tree"]["members"]) == 4 and result["tree"]["scores"]["test"]["overall"] is not None


def test_keys_that_transformers_may_leave_out_have_its_values(tmp_path: Path) -> None:
    for name, key, field, value in (("mpnet", "relative_attention_num_buckets", "relative_buckets", 32),
                                    ("electra", "embedding_size", "embedding", 128)):
        config = AutoConfig.for_model(name, **MODELS[name] | {"hidden_size": 64}).to_dict()
        del config[key]
        sizes, wrong = sizes_of(config)
        assert sizes is not None, wrong
        assert getattr(sizes, field) == getattr(AutoConfig.for_model(name), key) == value


@pytest.mark.parametrize("value", [None, "8", -1, 0, 1 << 40, 2.0, True, [8], {}, float("nan")])
@pytest.mark.parametrize("name", sorted(MODELS))
def test_any_value_of_any_key_is_told(name: str, value: object) -> None:
    for key in ARCHITECTURES[name].keys.values():
        sizes, wrong = sizes_of(AutoConfig.for_model(name, **MODELS[name]).to_dict() | {key: value})
        assert sizes is None and wrong and all(f"`{key}`" in text for text in wrong)


def test_layers_that_a_named_checkpoint_lacks(tmp_path: Path) -> None:
    MinBert(init="minilm-l6", frozen_layers=6).check(NOWHERE)
    for fields in ({"frozen_layers": 7}, {"averaged_layers": 7}):
        with pytest.raises(CheckpointError, match="is 7, but the encoder has 6 layers"):
            MinBert(init="minilm-l6", **fields).check(NOWHERE)
