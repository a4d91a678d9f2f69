"""BERT's encoder (Devlin et al. 2019, arXiv:1810.04805) on sentences that are packed without padding.

All tokens of all sentences are the rows of one matrix [N, width], so that linear layers, LayerNorm and GELU do no work
on padding. Attention alone regroups the rows into at most three rectangles of sentences of similar length. The rows of
one sentence never mix with another's, hence never with another task's. Two things follow:

- Where only [CLS] is read, the last layer is computed for the [CLS] rows alone (keys and values still for all rows).
- One forward and one backward pass serve all tasks. Every parameter may be replaced (`torch.func.functional_call`) by a
  *bank*, the parameter with a leading task dimension: `p.detach().expand(T, *p.shape).requires_grad_()`. The layers
  compute with `bank[0]`, and after one `sum(losses).backward()` `bank.grad[t]` is task t's own gradient, taken from
  the rows of task t alone; the gradient of the activations is computed once.

The word table may be replaced by some of its rows where `Packed.tokens` is numbered to match (`unique` gives both):
this keeps its gradient as small as the batch. Parameters: `word position segment norm`, `blocks.0.{query key value mix
mix_norm expand contract contract_norm}` and `pooler`, each `.weight` and, but for the three tables, `.bias`.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from .. import Packed
from .ops import attention, dropout, linears, lookup, norm
from .packing import AttentionBuckets, PackedLayout


def deviation(width: int) -> float:
    """Return the standard deviation of new weights (LeCun et al. 1998); BERT's 0.02 is too small for small encoders."""
    return 1 / math.sqrt(width)


class Embedding(nn.Module):
    """Embeddings [V, W], drawn as BERT's."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, width).normal_(0, deviation(width)))


class Linear(nn.Module):
    """A linear layer, drawn as BERT's; its parameters may be banks."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs).normal_(0, deviation(min(inputs, outputs))))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, tasks: tuple[int, ...]) -> Tensor:
        """Return [N, outputs] from x [N, inputs] and the rows of each task."""
        (result,) = linears(x, tasks, self.weight, self.bias)
        return result


def together(x: Tensor, tasks: tuple[int, ...], *layers: Linear) -> tuple[Tensor, ...]:
    """Return [N, outputs] of each of some layers from x [N, inputs], which all of them read."""
    return linears(x, tasks, *(p for layer in layers for p in (layer.weight, layer.bias)))


class Norm(nn.Module):
    """LayerNorm, in fp32 whatever it is given; its parameters may be banks."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width)), eps

    def forward(self, x: Tensor, tasks: tuple[int, ...]) -> Tensor:
        """Return [N, W] from x [N, W] and the rows of each task."""
        return norm(x.to(self.weight.dtype), self.weight, self.bias, self.eps, tasks)


class Block(nn.Module):
    """One layer: attention, then feed-forward, each with dropout, a residual and LayerNorm after it."""

    def __init__(self, width: int, intermediate: int, eps: float, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.query, self.key, self.value, self.mix = (Linear(width, width) for _ in range(4))
        self.mix_norm, self.contract_norm = Norm(width, eps), Norm(width, eps)
        self.expand, self.contract = Linear(width, intermediate), Linear(intermediate, width)

    def forward(self, asking: Tensor, keys: Tensor, new: AttentionBuckets, old: AttentionBuckets) -> Tensor:
        """Return new rows [N', W] for the rows `asking` [N', W], which look at the rows `keys` [N, W]."""
        p = self.dropout if self.training else 0.0
        if asking is keys:
            query, key, value = together(keys, old.tasks, self.query, self.key, self.value)
        else:
            query, (key, value) = self.query(asking, new.tasks), together(keys, old.tasks, self.key, self.value)
        mixed = self.mix(attention(query, key, value, new, old, p), new.tasks)
        x = self.mix_norm(asking + dropout(mixed, p), new.tasks)
        wide = functional.gelu(self.expand(x, new.tasks))
        result: Tensor = self.contract_norm(x + dropout(self.contract(wide, new.tasks), p), new.tasks)
        return result


class Bert(nn.Module):
    """BERT's encoder from `Packed` to embeddings [S, width]."""

    words = "word.weight"
    """The table whose rows are numbered by `Packed.tokens`."""

    def __init__(self, *, width: int, layers: int, heads: int, intermediate: int, vocabulary: int, positions: int,
                 segments: int = 1, eps: float = 1e-12, dropout: float = 0.1,
                 pooling: Literal["pooler", "cls", "mean"] = "pooler", mask: int = 0) -> None:
        super().__init__()
        self.width, self.heads, self.dropout, self.pooling, self.mask = width, heads, dropout, pooling, mask
        self.word, self.position, self.segment = (Embedding(n, width) for n in (vocabulary, positions, segments))
        self.norm = Norm(width, eps)
        self.blocks = nn.ModuleList(Block(width, intermediate, eps, dropout) for _ in range(layers))
        if pooling == "pooler":
            self.pooler = Linear(width, width)

    def depth(self, name: str) -> int:
        """Return how many layers down a parameter is: 0 the pooler, 1 the last block, and the tables one more."""
        room, _, rest = name.partition(".")
        if room == "blocks":
            return len(self.blocks) - int(rest.partition(".")[0])
        return 0 if room == "pooler" else len(self.blocks) + 1

    def hidden(self, packed: Packed) -> Tensor:
        """Return the last layer's states of all tokens [N, width]."""
        layout = PackedLayout.of(packed, self.heads, self.norm.weight.device)
        return self._layer(-1, self._before(packed, layout), layout)[:len(packed.tokens)]

    def forward(self, packed: Packed) -> Tensor:
        """Return one embedding for each sentence [S, width]."""
        layout = PackedLayout.of(packed, self.heads, self.norm.weight.device)
        x = self._before(packed, layout)
        if self.pooling == "mean":
            states = self._layer(-1, x, layout)[:len(packed.tokens)]
            return torch.segment_reduce(states, "mean", lengths=layout.lengths, unsafe=True)
        first: Tensor = self.blocks[-1](x.index_select(0, layout.starts), x, layout.first, layout.rows)
        return self.pooler(first, layout.first.tasks).to(x.dtype).tanh() if self.pooling == "pooler" else first

    def _before(self, packed: Packed, layout: PackedLayout) -> Tensor:
        """Return the states [N.., width] that the last layer reads."""
        tasks = layout.rows.tasks
        tokens = functional.pad(packed.tokens, (0, len(layout.positions) - len(packed.tokens)))
        words = lookup(self.word.weight, tokens.to(layout.starts.device), tasks)
        x: Tensor = self.norm(words + lookup(self._places(layout), layout.positions, tasks), tasks)
        x = dropout(x, self.dropout if self.training else 0.0)
        for number in range(len(self.blocks) - 1):
            x = self._layer(number, x, layout)
        return x

    def _places(self, layout: PackedLayout) -> Tensor:
        """Return the sums of position and segment embeddings [segments * longest, W], a block for each segment.

        An encoder with one segment embedding has it stand for both.
        """
        positions, segments = self.position.weight[..., :layout.longest, :], self.segment.weight
        kinds = [min(number, segments.shape[-2] - 1) for number in range(layout.segments)]
        return torch.cat([positions + segments[..., kind:kind + 1, :] for kind in kinds], dim=-2)

    def _layer(self, number: int, x: Tensor, layout: PackedLayout) -> Tensor:
        """Return all rows [N, width] after one layer."""
        result: Tensor = self.blocks[number](x, x, layout.rows, layout.rows)
        return result
