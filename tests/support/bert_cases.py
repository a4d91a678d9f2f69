"""What tests of parts/bert share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor
from transformers import BertConfig, BertModel

from runner.parts.encoders import Packed
from runner.parts.encoders.bert.architectures import ARCHITECTURES, sizes_of
from runner.parts.encoders.bert.model import Bert
from runner.tasks.data import Data, Examples

NOWHERE = Path("/nowhere")


HEADS = 4


Drawn = tuple[list[Tensor], tuple[int, ...]]
"""Sentences of random ids, and how many of them belong to each task."""


def peer(**changes: object) -> BertModel:
    """Return transformers' model with every parameter drawn anew, so that none is at a value that hides a mistake."""
    torch.manual_seed(1)
    config = {"vocab_size": 90, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": HEADS,
              "intermediate_size": 56, "max_position_embeddings": 48, "hidden_dropout_prob": 0.0,
              "attention_probs_dropout_prob": 0.0}
    model = BertModel(BertConfig(**config | changes, attn_implementation="eager"))
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, float(name.endswith("LayerNorm.weight")), 0.2)
    return model


def ours(model: BertModel, pooling: str = "pooler", dropout: float = 0.0) -> Bert:
    """Return our encoder with the weights of transformers' model."""
    c = model.config
    sizes, wrong = sizes_of(c.to_dict())
    assert sizes is not None, wrong
    made, theirs = Bert(sizes, dropout=dropout, pooling=pooling), model.state_dict()
    kind = ARCHITECTURES[sizes.architecture]
    made.load_state_dict({name: theirs[kind.their_name(name)] for name in made.state_dict()})
    return made.to(model.dtype)


def pack(sentences: Sequence[Tensor], sections: tuple[int, ...]) -> Packed:
    return Packed(torch.cat(list(sentences)), torch.tensor([len(s) for s in sentences]), sections)


def padded(sentences: Sequence[Tensor]) -> dict[str, Tensor]:
    ids = torch.nn.utils.rnn.pad_sequence(list(sentences), batch_first=True, padding_value=7)
    lengths = torch.tensor([[len(sentence)] for sentence in sentences])
    return {"input_ids": ids, "attention_mask": torch.arange(ids.shape[1]) < lengths}


@st.composite
def batches(draw: st.DrawFn) -> Drawn:
    """Draw sentences of random ids and how many of them belong to each of 1 to 4 tasks."""
    lengths = draw(st.lists(st.integers(1, 48), min_size=1, max_size=40))
    cuts = sorted(draw(st.lists(st.integers(0, len(lengths)), max_size=3)))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    sentences = [torch.from_numpy(random.integers(1, 90, length)) for length in lengths]
    return sentences, tuple(np.diff([0, *cuts, len(lengths)]).tolist())


def near(mine: Tensor, other: Tensor, limit: float) -> bool:
    """Tell whether the difference of two tensors is at most `limit` of their size, both in Euclid's norm."""
    return bool((mine - other).norm() <= limit * other.norm())


MODEL = peer().eval()


DOUBLE = peer().double().eval()


def banks_of(mine: Bert, tasks: int) -> dict[str, Tensor]:
    return {name: p.detach().expand(tasks, *p.shape).requires_grad_() for name, p in mine.named_parameters()}


def by_task(embeddings: Tensor, sections: tuple[int, ...]) -> list[Tensor]:
    """Return a loss of each task that is not linear and not the same for any two sentences."""
    factors = torch.linspace(-1, 1, embeddings.numel(), dtype=embeddings.dtype).view_as(embeddings)
    return [part.sum() for part in (embeddings * factors + embeddings**2).split(sections)]


SIZES = {"init": "scratch", "width": 16, "layers": 2, "attention_heads": 2, "vocabulary": 60}


def data(*sentences: str) -> Data:
    part = Examples(tuple(map(str, range(len(sentences)))), sentences)
    dev = Examples(("d",), ("unseen",), ("words",))
    return Data({}, {"a": {"train": part, "dev": dev}, "b": {"train": replace(part, second=sentences), "dev": dev}})
