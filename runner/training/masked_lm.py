"""Masked language modelling: selection, corruption and loss of tokens (Devlin et al. 2019, appendix C.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..parts.encoders import Packed

HIDDEN, SWAPPED = 0.8, 0.1
"""Shares of the selected tokens that are replaced by [MASK] and by a random token."""


def select(packed: Packed, p: float) -> Tensor:
    """Draw the positions to predict, each token with probability `p` but [CLS] and [SEP], int64 [H], ascending."""
    ends = packed.lengths.cumsum(0)
    starts, firsts = ends - packed.lengths, packed.lengths if packed.firsts is None else packed.firsts
    drawn = torch.rand(len(packed.tokens)) < p
    drawn[torch.cat([starts, starts + firsts - 1, ends - 1])] = False
    before = starts + firsts - 2  # RoBERTa has two [SEP] between the sentences of a pair
    drawn[before[packed.tokens[before] == packed.tokens[before + 1]]] = False
    return drawn.nonzero()[:, 0]


def corrupt(words: Tensor, positions: Tensor, mask: Tensor, table: Tensor) -> Tensor:
    """Replace most of the word embeddings [N, width] or [T, N, width] at `positions` by `mask` [width].

    Some are replaced by a random row of `table` [U, width] instead, and some are kept.
    """
    fate, other = torch.rand(len(positions)), torch.randint(len(table), (len(positions),))
    shown = torch.where((fate < HIDDEN).to(table.device)[:, None], mask, table[other.to(table.device)])
    touched = (fate < HIDDEN + SWAPPED).nonzero()[:, 0]
    shown = shown[touched.to(table.device)].expand(*words.shape[:-2], -1, -1)
    return words.index_copy(-2, positions[touched].to(words.device), shown)


def states(encoder: nn.Module, parameters: Mapping[str, Tensor], packed: Packed) -> Tensor:
    """Return the last hidden states [N, width] of all tokens, with `parameters` in place of the encoder's."""
    prefixed = {f"encoder.{name}": tensor for name, tensor in parameters.items()}
    return cast(Tensor, torch.func.functional_call(_States(encoder), prefixed, (packed,)))


def sentence_losses(packed: Packed, positions: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
    """Masked-LM cross-entropy in nats [S], averaged over the selected positions of each sentence; 0 without any.

    `logits` float [H, U] are the predictions at `positions`, `targets` int64 [H] the original tokens.
    """
    each = functional.cross_entropy(logits, targets, reduction="none")
    sentence = torch.arange(len(packed.lengths)).repeat_interleave(packed.lengths)[positions]
    counts = sentence.bincount(minlength=len(packed.lengths)).to(each.device)
    return torch.segment_reduce(each, "sum", lengths=counts, unsafe=True) / counts.clamp(min=1)


class _States(nn.Module):
    """Wraps an encoder so that `forward` returns its token states, for `functional_call`."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, packed: Packed) -> Tensor:
        """Return the last hidden states [N, width]."""
        return cast("Callable[[Packed], Tensor]", self.encoder.hidden)(packed)
