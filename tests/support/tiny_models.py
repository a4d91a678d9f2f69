"""Tiny random BERT-like models with their tokenizers, written by transformers, and projects that use them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from projects import project
from transformers import (
    AutoConfig,
    AutoModel,
    BertTokenizerFast,
    CamembertTokenizerFast,
    DistilBertTokenizerFast,
    ElectraTokenizerFast,
    MPNetTokenizerFast,
    PreTrainedModel,
    RobertaTokenizerFast,
    XLMRobertaTokenizerFast,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = ["the", "film", "cat", "good", "##ing", ",", ".", "!", "'"]
WORDPIECES = [*(f"##{c}" for c in LETTERS), *LETTERS, *WORDS]
UNIGRAMS = [(f"▁{word}", -2.0 - number / 9) for number, word in enumerate(WORDS)] + [
    (c, -6.0 - number / 9) for number, c in enumerate(f"▁{LETTERS}.,!'")]
MERGES = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("Ġ", "f"), ("i", "n"), ("in", "g")]
SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 56}
NARROW = {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 56, "sinusoidal_pos_embds": False}
MODELS: dict[str, dict[str, Any]] = {
    "bert": SIZES, "roberta": SIZES | {"type_vocab_size": 1}, "xlm-roberta": SIZES | {"type_vocab_size": 1},
    "camembert": SIZES | {"type_vocab_size": 1}, "distilbert": NARROW, "electra": SIZES | {"embedding_size": 20},
    "mpnet": SIZES,
}
"""Architectures -> configuration of the tiny model."""


def tokenizer(name: str) -> Any:
    """Return a tokenizer of the architecture with a tiny vocabulary."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    romance = ["<s>", "<pad>", "</s>", "<unk>"]
    if name in ("bert", "distilbert", "electra"):
        kinds = {"bert": BertTokenizerFast, "distilbert": DistilBertTokenizerFast, "electra": ElectraTokenizerFast}
        return kinds[name](vocab={piece: number for number, piece in enumerate([*special, *WORDPIECES])})
    if name == "mpnet":
        pieces = [*romance[:3], "[UNK]", *WORDPIECES, "<mask>"]
        return MPNetTokenizerFast(vocab={piece: number for number, piece in enumerate(pieces)})
    if name == "roberta":
        from tokenizers.pre_tokenizers import ByteLevel

        pieces = [*romance, *sorted(ByteLevel.alphabet()), *("".join(pair) for pair in MERGES), "<mask>"]
        return RobertaTokenizerFast(vocab={piece: number for number, piece in enumerate(pieces)}, merges=MERGES)
    kind = XLMRobertaTokenizerFast if name == "xlm-roberta" else CamembertTokenizerFast
    return kind(vocab=[*((piece, 0.0) for piece in romance), *UNIGRAMS, ("<mask>", 0.0)])


def save(folder: Path, name: str, **changes: Any) -> PreTrainedModel:
    """Write model and tokenizer into a folder as transformers does; return the model, with every parameter random."""
    spelling = tokenizer(name)
    torch.manual_seed(1)
    longest = 40 + (0 if name in ("bert", "distilbert", "electra") else 2)
    vocabulary = max(spelling.get_vocab().values()) + 1
    config = AutoConfig.for_model(name, vocab_size=vocabulary, max_position_embeddings=longest,
                                  pad_token_id=spelling.pad_token_id, **MODELS[name] | changes)
    model = AutoModel.from_config(config, attn_implementation="eager")
    for parameter_name, parameter in model.named_parameters():
        is_norm = parameter_name.endswith(("LayerNorm.weight", "layer_norm.weight"))
        torch.nn.init.normal_(parameter, float(is_norm), 0.2)
    model.save_pretrained(folder)
    spelling.save_pretrained(folder)
    return model.eval()


def encoded(folder: Path, encoder: str, **fields: str) -> Path:
    """Make a project whose encoder has the weights in `folder/weights` and these fields."""
    root = project(folder / "project")
    profile = root / "specs" / "profiles" / "demo.toml"
    scratch = 'type = "minbert"\ninit = "scratch"\nwidth = 16\nlayers = 1\nattention_heads = 2\nvocabulary = 200\n'
    assert scratch in profile.read_text()
    lines = "".join(f"{key} = {value}\n" for key, value in fields.items())
    profile.write_text(profile.read_text().replace(
        scratch, f'type = "{encoder}"\ninit = "{folder / "weights"}"\nmax_length = 40\n{lines}'))
    return root
