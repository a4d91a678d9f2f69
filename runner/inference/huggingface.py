"""Export leaves to the file formats of `transformers` and `tokenizers`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from safetensors.torch import save
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from torch import Tensor

from ..errors import Place
from ..files import json_bytes
from ..parts.encoders.bert.architectures import ARCHITECTURES, Sizes, config_of
from ..parts.encoders.bert.model import Bert
from ..parts.encoders.bert.pretrained import CONFIG, OPTIONS, TOKENIZER, VOCABULARY, WEIGHTS
from ..parts.encoders.bert.tokenizer import SPELLINGS, special_token
from ..parts.encoders.hf import HuggingFace
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


def transformers(leaf: StoredModel, project: Path) -> dict[str, bytes]:
    """Return the files of a folder for `AutoModel` and `AutoTokenizer`, with adapters merged into the weights.

    If tasks have parameters of their own, there is one folder a task. If a BERT pools the last layer with the pooler
    and exactly one head is linear, that head is exported as the classifier of `BertForSequenceClassification`. All
    heads are in heads.safetensors, by task, beside the learned weights of the pooling. Return no files if transformers
    has no such model: an adapter that cannot be merged, or an encoder of the user's own.
    """
    encoder, adapter = leaf.network.encoder, leaf.model.adapter
    if isinstance(leaf.model.encoder, HuggingFace):
        return _saved_by_transformers(leaf, leaf.model.encoder.folder(project))
    if not isinstance(encoder, Bert) or (adapter and not adapter.can_be_merged):
        return {}
    if not leaf.network.private:
        return _bert(leaf, encoder, encoder.merged_state(), list(leaf.network.heads))
    return {f"{task}/{name}": content for number, task in enumerate(leaf.network.heads)
            for name, content in _bert(leaf, encoder, encoder.merged_state(number), [task]).items()}


def _saved_by_transformers(leaf: StoredModel, source: Path) -> dict[str, bytes]:
    """Return the files that `save_pretrained` writes, the tokenizer's and the heads."""
    from transformers.utils import logging

    encoder = leaf.network.encoder
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    new = {f"encoder.{name}": encoder.get_parameter(name) for name in getattr(encoder, "new_parameters", ())}
    with tempfile.TemporaryDirectory() as folder:
        cast("Any", encoder).model.save_pretrained(folder)
        files = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
    options = {OPTIONS: (source / OPTIONS).read_bytes()} if (source / OPTIONS).is_file() else {}
    return {**files, **options, HEADS: _saved(dict(leaf.network.heads.state_dict()) | new),
            TOKENIZER: leaf.tokenizer.to_str(pretty=True).encode()}


def _bert(leaf: StoredModel, encoder: Bert, tensors: dict[str, Tensor], tasks: Sequence[str]) -> dict[str, bytes]:
    """Return the files for a BERT-like encoder with these tensors, which embeds the sentences of some tasks."""
    architecture = ARCHITECTURES[encoder.sizes.architecture]
    is_bert = architecture.model == "BertModel" and encoder.averaged == 1
    classifier = _classifier(leaf, tasks) if is_bert else {}
    new = {f"encoder.{name}": tensors.pop(name) for name in encoder.new_parameters}
    weights = {architecture.prefix + architecture.their_name(name): tensor for name, tensor in tensors.items()}
    ids = leaf.tokenizer.get_vocab()
    is_wordpiece = architecture.is_wordpiece and isinstance(leaf.tokenizer.model, WordPiece)
    has_all_ids = max(ids.values()) == len(ids) - 1
    pieces = {VOCABULARY: "".join(f"{piece}\n" for piece in sorted(ids, key=ids.__getitem__)).encode()}
    return {
        WEIGHTS: _saved(weights | classifier),
        HEADS: _saved(dict(leaf.network.heads.state_dict()) | new),
        CONFIG: json_bytes(_config(leaf, encoder, classifier)),
        **(pieces if is_wordpiece and has_all_ids else {}),
        OPTIONS: json_bytes(_options(leaf.tokenizer, encoder.sizes)),
        TOKENIZER: leaf.tokenizer.to_str(pretty=True).encode(),
    }


def _saved(tensors: dict[str, Tensor]) -> bytes:
    """Serialize tensors to safetensors with the format metadata `pt`."""
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, {"format": "pt"})


def _classifier(leaf: StoredModel, tasks: Sequence[str]) -> dict[str, Tensor]:
    """Return the weights of the only linear head under classifier names; empty unless it is of `tasks` and pooled."""
    linear = [task for task, head in leaf.model.heads.items() if head.type == "linear"]
    poolings = leaf.model.poolings or dict.fromkeys(linear, cast("Bert", leaf.network.encoder).pooling)
    if len(linear) != 1 or linear[0] not in tasks or poolings[linear[0]] != "pooler":
        return {}
    return {f"classifier.{name}": tensor for name, tensor in leaf.network.heads[linear[0]].state_dict().items()}


def _config(leaf: StoredModel, encoder: Bert, classifier: dict[str, Tensor]) -> dict[str, Any]:
    """Return the content of config.json."""
    labels: dict[str, Any] = {"num_labels": len(classifier["classifier.bias"])} if classifier else {}
    names = [leaf.model.suite.meanings()[task].labels for task, head in leaf.model.heads.items()
             if classifier and head.type == "linear"]
    if any(names):
        labels = {"id2label": {str(number): name for number, name in enumerate(names[0])},
                  "label2id": {name: number for number, name in enumerate(names[0])}}
    model = ARCHITECTURES[encoder.sizes.architecture].model
    return {
        **config_of(encoder.sizes), **labels,
        "architectures": ["BertForSequenceClassification" if classifier else model],
        "hidden_dropout_prob": encoder.dropout, "attention_probs_dropout_prob": encoder.dropout,
        "classifier_dropout": leaf.model.encoder.dropout, "dtype": "float32",
    } | ({} if encoder.sizes.first_position else {"pad_token_id": leaf.tokenizer.token_to_id("[PAD]")})


def _options(tokenizer: Tokenizer, sizes: Sizes) -> dict[str, Any]:
    """Return the content of tokenizer_config.json, as read by `transformers` and by mtrun."""
    normalizer = json.loads(tokenizer.to_str())["normalizer"] or {}
    spelling = normalizer.get("normalizers", [normalizer])[-1]
    names = {"lowercase": "do_lower_case", "strip_accents": "strip_accents",
             "handle_chinese_chars": "tokenize_chinese_chars"}
    return {
        **{f"{name}_token": piece for name in SPELLINGS if (piece := special_token(tokenizer, name))},
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": sizes.longest,
        "model_input_names": ["input_ids", *["token_type_ids"] * (sizes.segments > 0), "attention_mask"],
        **{theirs: spelling[ours] for ours, theirs in names.items() if ours in spelling},
    }
