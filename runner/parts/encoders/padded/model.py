"""A model of transformers as an encoder of packed sentences."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ....errors import CheckpointError, Place, Problem
from .. import Packed
from ..bert.pretrained import NO_POOLER

DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "hidden_dropout", "attention_dropout", "resid_pdrop",
            "embd_pdrop", "attn_pdrop", "embedding_dropout", "mlp_dropout", "dropout")
"""Keys of config.json that are probabilities of dropout within an encoder."""

AREA = 1.25
"""Padded tokens of a group of sentences, at most so many times the tokens themselves."""


def loaded(folder: Path, dropout: float | None) -> Any:
    """Load a model with `AutoModel` in fp32, from safetensors, without code of its own. Raise CheckpointError."""
    from transformers import AutoConfig, AutoModel

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        for key in DROPOUTS if dropout is not None else ():
            if isinstance(getattr(config, key, None), float):
                setattr(config, key, dropout)
        return AutoModel.from_pretrained(
            folder, config=config, trust_remote_code=False, local_files_only=True, use_safetensors=True,
            dtype=torch.float32)
    except Exception as error:  # transformers raises many unrelated types for what it cannot load
        raise CheckpointError(Problem(f"transformers cannot load the model: {str(error).splitlines()[0]}",
                                      Place(str(folder)))) from error


class HuggingFaceModel(nn.Module):
    """Maps `Packed` sentences to embeddings [S, width] by padded batches of sentences of similar length."""

    new_parameters: tuple[str, ...] = ()
    """Parameters that the files of the model lack; they begin at zero."""

    def __init__(self, model: Any, pooling: str, poolings: Iterable[str] = (), averaged: int = 1) -> None:
        super().__init__()
        self.model: Any = model
        self.pooling, self.averaged, config = pooling, averaged, model.config
        self.width: int = config.hidden_size
        takes = inspect.signature(model.forward).parameters
        self.has_segments = "token_type_ids" in takes and getattr(config, "type_vocab_size", 0) > 1
        self.pad: int = config.pad_token_id if isinstance(getattr(config, "pad_token_id", None), int) else 0
        numbers = [_layer(name) for name, _ in model.named_parameters()]
        self.layers = max((number for number in numbers if number is not None), default=-1) + 1
        if "pooler" in (pooling, *poolings) and getattr(model, "pooler", None) is None:
            raise CheckpointError(Problem(f"transformers' {type(model).__name__} has no pooler", hint=NO_POOLER))
        if "attention" in (pooling, *poolings):
            self.attention = nn.Linear(self.width, 1)
            self.new_parameters = ("attention.weight", "attention.bias")
            for parameter in self.attention.parameters():
                nn.init.zeros_(parameter)  # at first, the mean of all tokens

    def depth(self, name: str) -> int:
        """Return a parameter's layer from the top: 0 after the last layer, 1 in it, last the embeddings."""
        number = _layer(name)
        if number is not None:
            return self.layers - number
        return self.layers + 1 if re.search(r"embed|\bwte\b|\bwpe\b|relative_attention_bias", name) else 0

    def forward(self, packed: Packed, poolings: Sequence[str] = ()) -> Tensor:
        """Return the sentence embeddings [S, width]; `poolings` are those of the sections if they differ."""
        kinds = list(dict.fromkeys(poolings)) or [self.pooling]
        of_sections = [kinds.index(pooling) for pooling in poolings] or [0] * len(packed.sections)
        chosen = torch.tensor(of_sections).repeat_interleave(torch.tensor(packed.sections))
        order = torch.argsort(packed.lengths, descending=True, stable=True)
        starts = packed.lengths.cumsum(0) - packed.lengths
        found = [self._embed(packed, starts, rows, kinds, chosen[rows]) for rows in _groups(packed.lengths, order)]
        embeddings = torch.cat(found)
        return embeddings.index_select(0, torch.argsort(order).to(embeddings.device))

    def _embed(self, packed: Packed, starts: Tensor, rows: Tensor, kinds: list[str], chosen: Tensor) -> Tensor:
        """Return the embeddings of the sentences `rows`, of descending length; `chosen` indexes their poolings."""
        lengths = packed.lengths[rows]
        places = torch.arange(int(lengths[0]))
        is_token = places < lengths[:, None]
        index = (starts[rows][:, None] + places).clamp(max=len(packed.tokens) - 1)
        ids = packed.tokens.cpu()[index].masked_fill(~is_token, self.pad)
        device = next(self.model.parameters()).device
        more: dict[str, Any] = {}
        if self.has_segments:
            firsts = lengths if packed.firsts is None else packed.firsts[rows]
            more["token_type_ids"] = ((places >= firsts[:, None]) & is_token).long().to(device)
        mask = is_token.to(device)
        if self.averaged > 1:
            more["output_hidden_states"] = True
        output = self.model(input_ids=ids.to(device), attention_mask=mask.long(), **more)
        states: Tensor = output.last_hidden_state
        if self.averaged > 1:
            states = torch.stack([*output.hidden_states[-self.averaged:-1], states]).mean(0)
        pooled = [output.pooler_output if kind == "pooler" else self._pooled(kind, states, mask, lengths.to(device))
                  for kind in kinds]
        return pooled[0] if len(kinds) == 1 else torch.stack(pooled)[chosen, torch.arange(len(rows))]

    def _pooled(self, pooling: str, states: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        """Return the embeddings [n, width] of sentences from the states [n, L, width] of their tokens."""
        if pooling == "cls":
            return states[:, 0]
        if pooling == "last":
            return states[torch.arange(len(lengths)), lengths - 1]
        if pooling == "max":
            return states.masked_fill(~mask[..., None], float("-inf")).amax(1)
        if pooling == "attention":
            shares = self.attention(states).masked_fill(~mask[..., None], float("-inf")).softmax(1)
            mixed: Tensor = (states * shares).sum(1)
            return mixed
        return (states * mask[..., None]).sum(1) / lengths[:, None]


def _layer(name: str) -> int | None:
    """Return the number of the layer in a parameter's name, such as 3 in `encoder.layer.3.attention`."""
    found = re.search(r"\.(\d+)\.", f".{name}")
    return int(found[1]) if found else None


def _groups(lengths: Tensor, order: Tensor) -> list[Tensor]:
    """Split sentences of descending length into groups that need little padding, each [n]."""
    groups, begin, tokens = [], 0, 0
    ordered = lengths[order].tolist()
    for end, length in enumerate(ordered):
        tokens += length
        if ordered[begin] * (end - begin + 1) > AREA * tokens:
            groups.append(order[begin:end])
            begin, tokens = end, length
    return [*groups, order[begin:]]
