"""Words that are hidden from an encoder, and how well it guesses them (Devlin et al. 2019, appendix C.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..parts.encoders import Packed

HIDDEN, SWAPPED = 0.8, 0.1
"""Of the words that are to be guessed, how many are hidden and how many are another word."""


def chosen(packed: Packed, p: float) -> Tensor:
    """Return the places of the words that are to be guessed, int64 [H], rising; [CLS] and [SEP] are no words."""
    ends = packed.lengths.cumsum(0)
    starts, firsts = ends - packed.lengths, packed.lengths if packed.firsts is None else packed.firsts
    drawn = torch.rand(len(packed.tokens)) < p
    drawn[torch.cat([starts, starts + firsts - 1, ends - 1])] = False
    return drawn.nonzero()[:, 0]


def changed(words: Tensor, places: Tensor, mask: Tensor, table: Tensor) -> Tensor:
    """Return word embeddings [N, width] or [T, N, width] in which `mask` [width] stands in most of these places.

    In some stands a row of `table` [U, width] instead, and some are left as they are.
    """
    fate, other = torch.rand(len(places)), torch.randint(len(table), (len(places),))
    shown = torch.where((fate < HIDDEN).to(table.device)[:, None], mask, table[other.to(table.device)])
    touched = (fate < HIDDEN + SWAPPED).nonzero()[:, 0]
    shown = shown[touched.to(table.device)].expand(*words.shape[:-2], -1, -1)
    return words.index_copy(-2, places[touched].to(words.device), shown)


def states(encoder: nn.Module, parameters: Mapping[str, Tensor], packed: Packed) -> Tensor:
    """Return the states [N, width] of all tokens, with these in place of some of the encoder's parameters."""
    named = {f"encoder.{name}": tensor for name, tensor in parameters.items()}
    return cast(Tensor, torch.func.functional_call(_States(encoder), named, (packed,)))


def means(packed: Packed, places: Tensor, guesses: Tensor, words: Tensor) -> Tensor:
    """Return for each sentence [S] the mean of -log probability, in nats, of its words in some places; 0 without one.

    `guesses` float [H, U] are the logits in these places, of which `words` int64 [H] are the right ones.
    """
    each = functional.cross_entropy(guesses, words, reduction="none")
    sentence = torch.arange(len(packed.lengths)).repeat_interleave(packed.lengths)[places]
    counts = sentence.bincount(minlength=len(packed.lengths)).to(each.device)
    return torch.segment_reduce(each, "sum", lengths=counts, unsafe=True) / counts.clamp(min=1)


class _States(nn.Module):
    """An encoder whose forward pass returns the states of its tokens."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, packed: Packed) -> Tensor:
        """Return the states [N, width]."""
        return cast("Callable[[Packed], Tensor]", self.encoder.hidden)(packed)
