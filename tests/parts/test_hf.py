"""Models of transformers as encoders: their states, gradients of each task, and BERT as `minbert` computes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from systems import mtrun
from tiny_models import encoded, tokenizer
from tiny_models import save as save_bert_like
from tokenizers.pre_tokenizers import ByteLevel
from train_runs import digest, resumed, trainer, whole
from transformers import AutoConfig, AutoModel, AutoTokenizer, GPT2TokenizerFast, PreTrainedModel

from runner.errors import CheckpointError, SpecError
from runner.parts.combiners.pcgrad import PCGrad
from runner.parts.encoders import Packed
from runner.parts.encoders.hf import HuggingFace
from runner.parts.encoders.minbert import MinBert
from runner.registry.registry import WEIGHTS
from runner.specs.loader import Loader
from runner.tasks.data import Examples
from runner.training.tokens import Tokens

NOWHERE = Path("/nowhere")
TEXTS = ("the cat", "a good film !", "zebras", "The films, films and films going on.", "on and on " * 9, "a")
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40,
         "max_position_embeddings": 64}
MODELS: dict[str, dict[str, Any]] = {
    "bert": SMALL,
    "deberta-v2": SMALL | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "norm_rel_ebd": "layer_norm"},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "modernbert": SMALL | {"global_attn_every_n_layers": 2, "local_attention": 8},
}
POOLING = {"gpt2": "last"}


def save(folder: Path, name: str) -> PreTrainedModel:
    """Write a tiny random model with a tokenizer; return the model."""
    if name == "gpt2":
        pieces = [*sorted(ByteLevel.alphabet()), "<|endoftext|>"]
        spelling = GPT2TokenizerFast(vocab={piece: number for number, piece in enumerate(pieces)}, merges=[])
    else:
        spelling = tokenizer("bert")
    torch.manual_seed(1)
    special = {"pad_token_id": spelling.pad_token_id or 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 3,
               "sep_token_id": 4}
    config = AutoConfig.for_model(name, vocab_size=len(spelling), **special, **MODELS[name])
    model = AutoModel.from_config(config).eval()
    for parameter_name, parameter in model.named_parameters():
        if "norm" not in parameter_name.lower() and "ln_" not in parameter_name:
            torch.nn.init.normal_(parameter, 0.0, 0.2)
    model.save_pretrained(folder)
    spelling.save_pretrained(folder)
    return model


@pytest.fixture(scope="module", params=sorted(MODELS))
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PreTrainedModel]:
    """Folder and model of each kind."""
    folder = tmp_path_factory.mktemp(request.param)
    return folder, save(folder, request.param)


def part(folder: Path, pooling: str = "mean", **fields: Any) -> HuggingFace:
    return HuggingFace(init=str(folder), **{"max_length": 40, "pooling": pooling, "hidden_dropout": 0.0, **fields})


def load(folder: Path, pooling: str = "mean", joint: bool = False) -> tuple[Tokens, torch.nn.Module]:
    mine = part(folder, pooling)
    mine.check(NOWHERE)
    spelling = mine.tokenizer(None, NOWHERE)
    examples = Examples(TEXTS, TEXTS, TEXTS[::-1])
    return Tokens.of({"x": {"dev": examples}}, spelling, joint={"x": 1} if joint else {}), \
        mine.build(spelling, NOWHERE).eval()


@pytest.mark.parametrize("pooling", ["cls", "last", "mean", "max"])
def test_embeddings_and_gradients_are_those_of_single_sentences(
        made: tuple[Path, PreTrainedModel], pooling: str) -> None:
    folder, model = made
    tokens, mine = load(folder, pooling)
    batch = tokens.pack(tokens.rows(TEXTS), (len(TEXTS),))
    by = {"cls": lambda each: each[0], "last": lambda each: each[-1], "mean": lambda each: each.mean(0),
          "max": lambda each: each.amax(0)}[pooling]
    states = [model(input_ids=ids[None]).last_hidden_state[0]
              for ids in batch.tokens.split_with_sizes(batch.lengths.tolist())]
    expected = torch.stack([by(each) for each in states])
    assert torch.allclose(mine(batch), expected, rtol=1e-5, atol=1e-5)
    factors = torch.randn_like(expected)
    model.zero_grad()
    (expected * factors).sum().backward()
    (mine(batch) * factors).sum().backward()
    theirs = {name: p.grad for name, p in model.named_parameters()}
    rounding = 1e-6 * torch.stack([g.norm() for g in theirs.values() if g is not None]).norm()
    for name, parameter in mine.named_parameters():
        other = theirs[name.removeprefix("model.")]
        if other is not None:
            assert (parameter.grad - other).norm() <= 1e-4 * other.norm() + rounding, name


def test_layers_are_counted_from_the_top(made: tuple[Path, PreTrainedModel]) -> None:
    _, mine = load(made[0])
    depths = {name: mine.depth(name) for name, _ in mine.named_parameters()}
    assert set(depths.values()) - {0} == {1, 2, 3}
    assert all((depth == 3) == any(word in name for word in ("embed", "wte", "wpe")) for name, depth in depths.items())


def test_joint_pairs_are_those_of_the_tokenizer(made: tuple[Path, PreTrainedModel]) -> None:
    folder, _ = made
    tokens, _ = load(folder, joint=True)
    spelling = part(folder).tokenizer(None, NOWHERE)
    for pair in zip(TEXTS, TEXTS[::-1], strict=True):
        packed = tokens.pack(tokens.rows([pair]), (1,))
        encoding = spelling.encode(*pair)
        assert packed.tokens.tolist() == encoding.ids and len(encoding.ids) <= 40
        assert packed.firsts is not None and packed.firsts.tolist() == [encoding.sequence_ids.index(1)]


@pytest.mark.parametrize("parts", [1, 3])
def test_bert_has_the_gradients_of_each_task_that_banks_give(tmp_path: Path, parts: int) -> None:
    save_bert_like(tmp_path / "weights", "bert")
    root, found = encoded(tmp_path, "hf", pooling='"mean"', hidden_dropout="0.0"), []
    profile = root / "specs" / "profiles" / "demo.toml"
    for name in ("hf", "minbert"):
        profile.write_text(profile.read_text().replace('type = "hf"', f'type = "{name}"'))
        run = trainer(root, "encoder.dropout=0.0")
        assert run.network.model.encoder.type == name
        losses = run.network.backward(run.batches.batch(0), PCGrad(), np.random.default_rng(3), parts=parts)
        encoder = torch.cat([gradient.flatten() for name, gradient in run.network.gradients().items()
                             if ".layer." in name or ".blocks." in name])
        heads = {name: p.grad for name, p in run.network.heads.named_parameters()}
        found.append((losses, run.network.gram, encoder.norm(), heads))
    (losses, gram, norm, heads), (other_losses, other_gram, other_norm, other_heads) = found
    assert torch.allclose(losses, other_losses, rtol=1e-5)
    np.testing.assert_allclose(gram, other_gram, rtol=1e-4, atol=1e-6 * np.abs(gram).max())
    factors = [PCGrad().shared(each, np.random.default_rng(3)) for each in (gram, other_gram)]
    np.testing.assert_allclose(*factors, rtol=1e-4)
    assert torch.allclose(norm, other_norm, rtol=1e-4)
    for name, gradient in heads.items():
        assert (gradient - other_heads[name]).norm() <= 1e-4 * other_heads[name].norm() + 1e-7, name


@pytest.mark.parametrize("name", sorted(MODELS))
def test_stopped_and_resumed_is_the_same_to_the_bit(tmp_path: Path, name: str) -> None:
    save(tmp_path / "weights", name)
    root = encoded(tmp_path, "hf", pooling=f'"{POOLING.get(name, "mean")}"', hidden_dropout="0.1")
    settings = ("combiner=pcgrad", "train.steps=3", "optimizer.layer_decay=0.9", "encoder.frozen_layers=1")
    wanted, predictions, ticks = whole(root, *settings)
    run, again = resumed(root, [ticks // 3, ticks // 3], *settings)
    assert digest(run) == digest(wanted) and again == predictions


@pytest.mark.parametrize("name", ["gpt2", "modernbert"])
def test_it_is_built_and_predicts(tmp_path: Path, name: str) -> None:
    save(tmp_path / "weights", name)
    root = encoded(tmp_path, "hf", pooling=f'"{POOLING.get(name, "mean")}"')
    assert mtrun(root, "build", "specs/sum.toml", "--executor", "inline", "-q").code == 0
    done = mtrun(root, "predict", "specs/sum.toml", "the cat", "--format", "json")
    assert done.code == 0 and json.loads(done.out.splitlines()[0])
    assert mtrun(root, "export", "specs/sum.toml", "-o", str(root / "bundle")).code == 0
    assert mtrun(root, "reproduce", str(root / "bundle")).code == 0


def test_soups_students_and_starts_are_made_of_it_and_transformers_reads_its_export(tmp_path: Path) -> None:
    save(tmp_path / "weights", "modernbert")
    root = encoded(tmp_path, "hf", pooling='"mean"', hidden_dropout="0.0")
    for name, text in {"other": "[train]\nseed = 5\n", "pupil": '[teacher]\nspec = "sum.toml"\n',
                       "later": 'start = "sum.toml"\n'}.items():
        (root / "specs" / f"{name}.toml").write_text(f'kind = "model"\nextends = "sum.toml"\n{text}')
    (root / "specs" / "mean.toml").write_text('kind = "soup"\nmembers = ["sum.toml", "other.toml"]\n')
    specs = [f"specs/{name}.toml" for name in ("mean", "pupil", "later")]
    assert mtrun(root, "build", *specs, "--executor", "inline", "-q").code == 0
    assert mtrun(root, "export", "specs/later.toml", "-o", str(root / "bundle")).code == 0
    folder = root / "bundle" / "transformers"
    model, report = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    run = trainer(root)
    stored = {json.loads(path.read_text())["name"]: load_file(path.parent / WEIGHTS)
              for path in (root / "registry").glob("*/manifest.json")}
    run.network.load_trained(stored["later"])
    spelling = AutoTokenizer.from_pretrained(folder)
    ids = spelling("the cat")["input_ids"]
    states = model.eval()(input_ids=torch.tensor([ids])).last_hidden_state
    packed = Packed(torch.tensor(ids), torch.tensor([len(ids)]), (1,))
    assert torch.allclose(run.network.eval().embed(packed, ("sentiment",)), states.mean(1), atol=1e-5)
    for name, tensor in stored["mean"].items():
        mean = (stored["sum"][name].double() + stored["other"][name].double()) / 2
        assert torch.allclose(tensor, mean.float())


@pytest.mark.parametrize("averaged", [1, 2])
def test_the_pooler_and_averaged_layers_are_those_of_minbert(tmp_path: Path, averaged: int) -> None:
    save_bert_like(tmp_path / "weights", "bert")
    texts, found = list(TEXTS), []
    with pytest.raises(CheckpointError, match="takes the last layer alone"):
        part(tmp_path / "weights", "pooler", averaged_layers=2).check(NOWHERE)
    for pooling in ("pooler", "mean", "attention")[averaged - 1:]:
        for kind in (HuggingFace, MinBert):
            mine = kind(init=str(tmp_path / "weights"), pooling=pooling, averaged_layers=averaged, max_length=40,
                        hidden_dropout=0.0)
            mine.check(NOWHERE)
            spelling = mine.tokenizer(None, NOWHERE)
            tokens = Tokens.of({"x": {"dev": Examples(TEXTS, TEXTS)}}, spelling)
            made = mine.build(spelling, NOWHERE).eval()
            for name, parameter in made.named_parameters():
                if name.startswith("attention."):
                    torch.nn.init.constant_(parameter, 0.1)
            found.append(made(tokens.pack(tokens.rows(texts), (len(texts),))))
        assert torch.allclose(found[-1], found[-2], rtol=1e-4, atol=1e-5), pooling


def test_what_a_worker_would_refuse_is_told_before(tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    save(folder, "modernbert")
    with pytest.raises(CheckpointError, match="has no pooler"):
        part(folder, "pooler").check(NOWHERE)
    for field in ("frozen_layers", "averaged_layers"):
        with pytest.raises(CheckpointError, match=f"`{field}` is 3, but the encoder has 2 layers"):
            part(folder, **{field: 3}).check(NOWHERE)
    with pytest.raises(CheckpointError, match="`max_length` is 65") as caught:
        part(folder, max_length=65).check(NOWHERE)
    assert caught.value.problems[0].hint == "max_length = 64"
    save_bert_like(tmp_path / "bert-like", "mpnet")
    part(tmp_path / "bert-like", max_length=40).check(NOWHERE)
    with pytest.raises(CheckpointError, match="`max_length` is 41"):
        part(tmp_path / "bert-like", max_length=41).check(NOWHERE)
    with pytest.raises(CheckpointError, match="neither a named checkpoint nor a folder") as caught:
        part(tmp_path / "weihgts").check(NOWHERE)
    assert "weights" in caught.value.problems[0].hint
    root = encoded(tmp_path, "hf")
    with pytest.raises(SpecError, match="the regularizer `smart` changes word embeddings"):
        Loader(root, "demo", ["regularizer=smart"]).load(root / "specs" / "sum.toml")
    with pytest.raises(ValidationError, match="`revision` is for a repository of the hub"):
        part(folder, revision="0" * 40)
    for init in ("minilm-l6", "scratch"):
        with pytest.raises(ValidationError, match="is for the encoder `minbert`"):
            HuggingFace(init=init)
    (folder / "tokenizer.json").rename(folder / "t")
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json"):
        part(folder).check(NOWHERE)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"no model\.safetensors"):
        part(folder).check(NOWHERE)
