"""A tiny pretrained checkpoint, written by transformers."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import BertConfig, BertForPreTraining

from runner.parts.encoders.bert.pretrained import VOCABULARY
from runner.parts.encoders.bert.tokenizer import SPECIAL

PIECES = [*SPECIAL, *"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"), "the"]


def checkpoint(folder: Path) -> Path:
    """Write a checkpoint as transformers does: `bert.` before every name, and `cls.*` besides."""
    torch.manual_seed(3)
    config = BertConfig(vocab_size=len(PIECES), hidden_size=24, num_hidden_layers=2, num_attention_heads=3,
                        intermediate_size=40, max_position_embeddings=48, layer_norm_eps=1e-9)
    model = BertForPreTraining(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0.3)
    model.save_pretrained(folder)
    (folder / VOCABULARY).write_text("\n".join(PIECES) + "\n")
    return folder
