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
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from .encoders import Packed
from .layout import Grid, Layout


def noise(like: Tensor, p: float) -> Tensor:
    """Return factors of dropout in the shape of a tensor: 0 with probability p, else 1 / (1 - p).

    On a CPU one 64-bit draw serves four numbers, a third of the time of `bernoulli_`; p is met to within 1 / 65536.
    """
    if like.device.type != "cpu":
        return torch.empty_like(like).bernoulli_(1 - p).mul_(1 / (1 - p))
    count, dropped = like.numel(), round(p * 65536)
    draws = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-2**63, None).view(torch.int16)
    kept = draws[:count].view(like.shape) >= dropped - 32768
    return kept.to(like.dtype).mul_(65536 / (65536 - dropped))


def dropout(x: Tensor, p: float) -> Tensor:
    """Return x with a share p of its numbers set to zero and the others scaled so that the mean stays."""
    return x * noise(x, p) if p else x


def _times(x: Tensor, factors: Tensor | None) -> Tensor:
    """Return x times the factors of dropout, where there are any."""
    return x if factors is None else x * factors


class _Linears(Function):
    """x W^T + b [N, out] for several layers that read the same x, with one product for all of them.

    The weights W [out, in] and biases b [out] come in turn. Where they are banks [T, out, in] and [T, out], each task's
    rows make a gradient of their own.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, tasks: tuple[int, ...], *parameters: Tensor) -> tuple[Tensor, ...]:
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        ctx.banked = parameters[0].dim() == 3
        used = [p[0] if ctx.banked else p for p in parameters]
        w, b = (torch.cat([p.to(dtype) for p in used[kind::2]]) for kind in (0, 1))
        x = x.to(dtype)
        ctx.save_for_backward(x, w)
        ctx.tasks, ctx.sizes = tasks if ctx.banked else (len(x),), [len(p) for p in used[1::2]]
        return functional.linear(x, w, b).split_with_sizes(ctx.sizes, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        grad = grads[0] if len(grads) == 1 else torch.cat(grads, 1)
        weights = grad.new_empty((len(ctx.tasks), *w.shape))
        by_task = grad.split_with_sizes(ctx.tasks)
        for g, rows, out in zip(by_task, x.split_with_sizes(ctx.tasks), weights, strict=True):
            torch.mm(g.t(), rows, out=out)
        biases = torch.stack([g.sum(0) for g in by_task])
        parts = zip(weights.split_with_sizes(ctx.sizes, 1), biases.split_with_sizes(ctx.sizes, 1), strict=True)
        each = [p if ctx.banked else p[0] for pair in parts for p in pair]
        return grad @ w, None, *each


class _TaskNorm(Function):
    """LayerNorm of x [N, W] with one gradient of the banks [T, W] for each task's rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, tasks: tuple[int, ...]) -> Tensor:
        y, mean, scale = torch.native_layer_norm(x, x.shape[-1:], weight[0], bias[0], eps)
        ctx.save_for_backward(x, mean, scale, weight[0], bias[0])
        ctx.tasks = tasks
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        *by_row, weight, bias = ctx.saved_tensors
        split = zip(*(rows.split_with_sizes(ctx.tasks) for rows in (grad, *by_row)), strict=True)
        parts = [torch.ops.aten.native_layer_norm_backward(g, x, x.shape[-1:], mean, scale, weight, bias, [True] * 3)
                 for g, x, mean, scale in split]
        x, weights, biases = zip(*parts, strict=True)
        return torch.cat(x), torch.stack(weights), torch.stack(biases), None, None


class _TaskLookup(Function):
    """Rows [N, W] of a table with one gradient of the bank [T, V, W] for each task's rows."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor, tasks: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(index)
        ctx.shape, ctx.tasks = table.shape, tasks
        return table[0].index_select(0, index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (index,) = ctx.saved_tensors
        tables = grad.new_zeros(ctx.shape)
        by_task = (index.split_with_sizes(ctx.tasks), grad.split_with_sizes(ctx.tasks))
        for table, rows, g in zip(tables, *by_task, strict=True):
            table.index_add_(0, rows, g)
        return tables, None, None


class _Attention(Function):
    """Softmax(Q K^T / sqrt(D)) V within each sentence, with dropout on the probabilities; rows in, rows out."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, asking: Grid, asked: Grid, p: float) -> Tensor:
        # On a CPU products so small gain nothing from bf16, and lose by the code that is made for each of their shapes.
        kind = torch.promote_types(query.dtype, torch.float32) if query.device.type == "cpu" else query.dtype
        q, k, v = asking.put(query.to(kind)), asked.put(key.to(kind)), asked.put(value.to(kind))
        mixed, saved = torch.empty_like(q), []
        scale = q.shape[1] ** -0.5
        parts = zip(asking.split(q), asked.split(k), asked.split(v), asking.split(mixed), asked.masks, strict=True)
        with torch.autocast(q.device.type, enabled=False):
            for qs, ks, vs, out, mask in parts:
                shares = torch.baddbmm(mask.to(q.dtype), qs, ks.mT, alpha=scale).softmax(-1)
                factors = noise(shares, p) if p else None
                torch.bmm(_times(shares, factors), vs, out=out)
                saved += [shares, factors]
        ctx.save_for_backward(q, k, v, *saved)
        ctx.grids = asking, asked
        return asking.take(mixed).to(query.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        q, k, v, *saved = ctx.saved_tensors
        asking, asked = ctx.grids
        scale = q.shape[1] ** -0.5
        # A padded query's gradient must be zero: it would reach the keys and values of its sentence.
        mixed = asking.put(grad.to(q.dtype)).mul_(asking.real)
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        parts = zip(*map(asking.split, (q, mixed, dq)), *map(asked.split, (k, v, dk, dv)),
                    saved[::2], saved[1::2], strict=True)
        for qs, g, dqs, ks, vs, dks, dvs, shares, factors in parts:
            torch.bmm(_times(shares, factors).mT, g, out=dvs)
            slopes = _times(torch.bmm(g, vs.mT), factors)
            slopes = torch._softmax_backward_data(slopes, shares, -1, shares.dtype).mul_(scale)
            torch.bmm(slopes, ks, out=dqs)
            torch.bmm(slopes.mT, qs, out=dks)
        dq, dk, dv = (grid.take(d).to(grad.dtype) for grid, d in ((asking, dq), (asked, dk), (asked, dv)))
        return dq, dk, dv, None, None, None


_linears: Callable[..., tuple[Tensor, ...]] = _Linears.apply
_task_norm: Callable[..., Tensor] = _TaskNorm.apply
_task_lookup: Callable[..., Tensor] = _TaskLookup.apply
_attention: Callable[..., Tensor] = _Attention.apply


def lookup(table: Tensor, index: Tensor, tasks: tuple[int, ...]) -> Tensor:
    """Return rows [N, W] of a table [V, W] or of a bank of tables."""
    return functional.embedding(index, table) if table.dim() == 2 else _task_lookup(table, index, tasks)


def deviation(width: int) -> float:
    """Return the standard deviation of new weights (LeCun et al. 1998); BERT's 0.02 is too small for small encoders."""
    return 1 / math.sqrt(width)


class Table(nn.Module):
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
        (result,) = linears(x, tasks, self)
        return result


def linears(x: Tensor, tasks: tuple[int, ...], *layers: Linear) -> tuple[Tensor, ...]:
    """Return [N, outputs] of each of some layers from x [N, inputs], which all of them read."""
    return _linears(x, tasks, *(p for layer in layers for p in (layer.weight, layer.bias)))


class Norm(nn.Module):
    """LayerNorm, in fp32 whatever it is given; its parameters may be banks."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width)), eps

    def forward(self, x: Tensor, tasks: tuple[int, ...]) -> Tensor:
        """Return [N, W] from x [N, W] and the rows of each task."""
        if self.weight.dim() == 1:
            return functional.layer_norm(x.to(self.weight.dtype), x.shape[-1:], self.weight, self.bias, self.eps)
        return _task_norm(x.to(self.weight.dtype), self.weight, self.bias, self.eps, tasks)


class Block(nn.Module):
    """One layer: attention, then feed-forward, each with dropout, a residual and LayerNorm after it."""

    def __init__(self, width: int, intermediate: int, eps: float, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.query, self.key, self.value, self.mix = (Linear(width, width) for _ in range(4))
        self.mix_norm, self.contract_norm = Norm(width, eps), Norm(width, eps)
        self.expand, self.contract = Linear(width, intermediate), Linear(intermediate, width)

    def forward(self, asking: Tensor, asked: Tensor, new: Grid, old: Grid) -> Tensor:
        """Return new rows [N', W] for the rows `asking` [N', W], which look at the rows `asked` [N, W]."""
        p = self.dropout if self.training else 0.0
        if asking is asked:
            query, key, value = linears(asked, old.tasks, self.query, self.key, self.value)
        else:
            query, (key, value) = self.query(asking, new.tasks), linears(asked, old.tasks, self.key, self.value)
        mixed = self.mix(_attention(query, key, value, new, old, p), new.tasks)
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
                 pooling: Literal["pooler", "cls", "mean"] = "pooler") -> None:
        super().__init__()
        self.width, self.heads, self.dropout, self.pooling = width, heads, dropout, pooling
        self.word, self.position, self.segment = (Table(n, width) for n in (vocabulary, positions, segments))
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
        layout = Layout.of(packed, self.heads, self.norm.weight.device)
        return self._layer(-1, self._before(packed, layout), layout)[:len(packed.tokens)]

    def forward(self, packed: Packed) -> Tensor:
        """Return one embedding for each sentence [S, width]."""
        layout = Layout.of(packed, self.heads, self.norm.weight.device)
        x = self._before(packed, layout)
        if self.pooling == "mean":
            states = self._layer(-1, x, layout)[:len(packed.tokens)]
            return torch.segment_reduce(states, "mean", lengths=layout.lengths, unsafe=True)
        first: Tensor = self.blocks[-1](x.index_select(0, layout.starts), x, layout.first, layout.rows)
        return self.pooler(first, layout.first.tasks).to(x.dtype).tanh() if self.pooling == "pooler" else first

    def _before(self, packed: Packed, layout: Layout) -> Tensor:
        """Return the states [N.., width] that the last layer reads."""
        tasks = layout.rows.tasks
        tokens = functional.pad(packed.tokens, (0, len(layout.positions) - len(packed.tokens)))
        words = lookup(self.word.weight, tokens.to(layout.starts.device), tasks)
        x: Tensor = self.norm(words + lookup(self._places(layout), layout.positions, tasks), tasks)
        x = dropout(x, self.dropout if self.training else 0.0)
        for number in range(len(self.blocks) - 1):
            x = self._layer(number, x, layout)
        return x

    def _places(self, layout: Layout) -> Tensor:
        """Return the sums of position and segment embeddings [segments * longest, W], a block for each segment.

        An encoder with one segment embedding has it stand for both.
        """
        positions, segments = self.position.weight[..., :layout.longest, :], self.segment.weight
        kinds = [min(number, segments.shape[-2] - 1) for number in range(layout.segments)]
        return torch.cat([positions + segments[..., kind:kind + 1, :] for kind in kinds], dim=-2)

    def _layer(self, number: int, x: Tensor, layout: Layout) -> Tensor:
        """Return all rows [N, width] after one layer."""
        result: Tensor = self.blocks[number](x, x, layout.rows, layout.rows)
        return result
