"""Export leaves to the file formats of `transformers` and `tokenizers`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save
from tokenizers import Tokenizer
from torch import Tensor

from ..errors import Place
from ..files import json_bytes
from ..parts.encoders.bert.model import Bert
from ..parts.encoders.bert.pretrained import CONFIG, CONFIG_KEYS, OPTIONS, REQUIRED, VOCABULARY, WEIGHTS, their_name
from ..registry.registry import MANIFEST, Run
from ..specs.stored_run import model_of
from ..tasks.data import Data
from ..training.stored_model import StoredModel

HEADS = "heads.safetensors"
"""File of all task heads, which no class of `transformers` can hold."""


def tokenizer(run: Run, data: Data, project: Path) -> bytes:
    """Return the tokenizer of a finished run in the format of `tokenizers.Tokenizer.from_file`."""
    model = model_of(run.manifest["spec"], Place(str(run.folder / MANIFEST)), project)
    return model.encoder.tokenizer(data, project).to_str(pretty=True).encode()


def transformers(leaf: StoredModel) -> dict[str, bytes]:
    """Return the files of a folder for `AutoModel` and `AutoTokenizer`; empty if the encoder is not a BERT.

    If the encoder pools with the pooler and exactly one head is linear, that head is exported as the classifier of
    `BertForSequenceClassification`. All heads are in heads.safetensors, by task.
    """
    encoder = leaf.network.encoder
    if not isinstance(encoder, Bert):
        return {}
    classifier = _classifier(leaf) if encoder.pooling == "pooler" else {}
    weights = {f"bert.{their_name(name)}": tensor for name, tensor in encoder.state_dict().items()} | classifier
    return {
        WEIGHTS: _saved(weights),
        HEADS: _saved(dict(leaf.network.heads.state_dict())),
        CONFIG: json_bytes(_config(leaf, encoder, classifier)),
        VOCABULARY: "".join(f"{piece}\n" for piece in _pieces(leaf.tokenizer)).encode(),
        OPTIONS: json_bytes(_options(leaf.tokenizer, len(encoder.position.weight))),
        "tokenizer.json": leaf.tokenizer.to_str(pretty=True).encode(),
    }


def _saved(tensors: dict[str, Tensor]) -> bytes:
    """Serialize tensors to safetensors with the format metadata `pt`."""
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, {"format": "pt"})


def _classifier(leaf: StoredModel) -> dict[str, Tensor]:
    """Return the weights of the only linear head under classifier names; empty unless exactly one head is linear."""
    linear = [task for task, head in leaf.model.heads.items() if head.type == "linear"]
    if len(linear) != 1:
        return {}
    return {f"classifier.{name}": tensor for name, tensor in leaf.network.heads[linear[0]].state_dict().items()}


def _config(leaf: StoredModel, encoder: Bert, classifier: dict[str, Tensor]) -> dict[str, Any]:
    """Return the content of config.json."""
    block: Any = encoder.blocks[0]
    sizes = {
        "width": encoder.width, "layers": len(encoder.blocks), "heads": encoder.heads,
        "intermediate": len(block.expand.weight), "vocabulary": len(encoder.word.weight),
        "positions": len(encoder.position.weight), "segments": len(encoder.segment.weight),
    }
    labels = {"num_labels": len(classifier["classifier.bias"])} if classifier else {}
    return {
        **REQUIRED, **{CONFIG_KEYS[key]: value for key, value in sizes.items()}, **labels,
        "architectures": ["BertForSequenceClassification" if classifier else "BertModel"],
        "layer_norm_eps": encoder.norm.eps, "hidden_dropout_prob": encoder.dropout,
        "attention_probs_dropout_prob": encoder.dropout, "classifier_dropout": leaf.model.encoder.dropout,
        "pad_token_id": leaf.tokenizer.token_to_id("[PAD]"), "dtype": "float32",
    }


def _pieces(tokenizer: Tokenizer) -> list[str]:
    """Return the word pieces in order of their ids."""
    vocabulary = tokenizer.get_vocab()
    return sorted(vocabulary, key=lambda piece: vocabulary[piece])


def _options(tokenizer: Tokenizer, max_length: int) -> dict[str, Any]:
    """Return the content of tokenizer_config.json, as read by `transformers` and by mtrun."""
    normalizer = json.loads(tokenizer.to_str())["normalizer"]
    spelling = normalizer.get("normalizers", [normalizer])[-1]
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    return {
        **special, "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": max_length,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        "do_lower_case": spelling["lowercase"], "strip_accents": spelling["strip_accents"],
        "tokenize_chinese_chars": spelling["handle_chinese_chars"],
    }
