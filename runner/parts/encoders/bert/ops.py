"""Operations of the packed encoder with custom backward passes, which can compute per-task gradients.

Rows of one task never mix with another's. So every parameter may be a *bank*, the parameter with a leading task
dimension [T, ...]: an operation computes with `bank[0]`, and the gradient of `bank[t]` comes from the rows of task t.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from . import products
from .packing import AttentionBuckets


def dropout_mask(like: Tensor, p: float) -> Tensor:
    """Draw a scaled dropout mask in the shape of a tensor: 0 with probability p, else 1 / (1 - p).

    On a CPU one 64-bit draw gives four numbers, in a third of the time of `bernoulli_`; p is rounded to 1 / 65536.
    """
    if like.device.type != "cpu":
        return torch.empty_like(like).bernoulli_(1 - p).mul_(1 / (1 - p))
    count, dropped = like.numel(), round(p * 65536)
    draws = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-2**63, None).view(torch.int16)
    kept = torch.empty(like.shape, dtype=like.dtype)
    torch.ge(draws[:count].view(like.shape), dropped - 32768, out=kept)  # 4 times faster than casting bools
    return kept.mul_(65536 / (65536 - dropped))


def dropout(x: Tensor, p: float) -> Tensor:
    """Apply dropout with probability p."""
    return x * dropout_mask(x, p) if p else x


def _times(x: Tensor, factors: Tensor | None) -> Tensor:
    """Multiply x by a dropout mask, if there is one."""
    return x if factors is None else x * factors


class _Linears(Function):
    """x W^T + b [N, out] for several layers with the same input, in one matrix product.

    Parameters alternate: weight W [out, in], bias b [out], ... Banks [T, out, in] and [T, out] get per-task gradients.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, tasks: tuple[int, ...], *parameters: Tensor) -> tuple[Tensor, ...]:
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        ctx.banked = parameters[0].dim() == 3
        used = [(p[0] if ctx.banked else p).to(dtype) for p in parameters]
        w, b = used if len(used) == 2 else (torch.cat(used[kind::2]) for kind in (0, 1))  # no copy of a single layer
        x = x.to(dtype)
        is_trained = any(ctx.needs_input_grad[2:])  # else single weights are saved: a copy of all would stay in memory
        ctx.save_for_backward(*((x, w) if is_trained else (None, *used[::2])))
        ctx.tasks, ctx.sizes = tasks if ctx.banked else (len(x),), [len(p) for p in used[1::2]]
        return products.linear(x, w, b).split_with_sizes(ctx.sizes, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        w = weights[0] if len(weights) == 1 else torch.cat(weights)
        grad = grads[0] if len(grads) == 1 else torch.cat(grads, 1)
        down = products.linear(grad, w.t()) if ctx.needs_input_grad[0] else None
        if x is None:  # the layers are frozen
            return down, None, *(None for _ in ctx.needs_input_grad[2:])
        slopes, by_task = products.weight_gradients(grad, x, ctx.tasks), grad.split_with_sizes(ctx.tasks)
        biases = torch.stack([g.sum(0) for g in by_task])
        parts = zip(slopes.split_with_sizes(ctx.sizes, 1), biases.split_with_sizes(ctx.sizes, 1), strict=True)
        each = [p if ctx.banked else p[0] for pair in parts for p in pair]
        return down, None, *each


class _TaskNorm(Function):
    """LayerNorm of x [N, W] with per-task gradients of the banks [T, W]."""

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
    """Embedding lookup [N, W] with per-task gradients of the bank [T, V, W]."""

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
    """softmax(Q K^T / sqrt(D)) V within each sentence, with dropout on the probabilities; packed rows in and out."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, q_buckets: AttentionBuckets,
                k_buckets: AttentionBuckets, p: float, *biases: Tensor) -> Tensor:
        # On a CPU products this small gain nothing from bf16, and oneDNN would compile code for each of their shapes.
        kind = torch.promote_types(query.dtype, torch.float32) if query.device.type == "cpu" else query.dtype
        q, k, v = q_buckets.put(query.to(kind)), k_buckets.put(key.to(kind)), k_buckets.put(value.to(kind))
        mixed, saved = torch.empty_like(q), []
        scale = q.shape[1] ** -0.5
        parts = zip(q_buckets.split(q), k_buckets.split(k), k_buckets.split(v), q_buckets.split(mixed),
                    k_buckets.masks, biases or (None,) * len(k_buckets.masks), strict=True)
        with torch.autocast(q.device.type, enabled=False):
            for qs, ks, vs, out, mask, bias in parts:
                added = (mask if bias is None else mask + bias).to(q.dtype)
                shares = torch.baddbmm(added, qs, ks.mT, alpha=scale).softmax(-1)
                factors = dropout_mask(shares, p) if p else None
                torch.bmm(_times(shares, factors), vs, out=out)
                saved += [shares, factors]
        ctx.save_for_backward(q, k, v, *saved)
        ctx.buckets, ctx.is_biased = (q_buckets, k_buckets), bool(biases)
        return q_buckets.take(mixed).to(query.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *saved = ctx.saved_tensors
        q_buckets, k_buckets = ctx.buckets
        scale = q.shape[1] ** -0.5
        # A padded query's gradient must be zero: it would reach the keys and values of its sentence.
        mixed = q_buckets.put(grad.to(q.dtype)).mul_(q_buckets.real)
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        parts = zip(*map(q_buckets.split, (q, mixed, dq)), *map(k_buckets.split, (k, v, dk, dv)),
                    saved[::2], saved[1::2], strict=True)
        biases = []
        for qs, g, dqs, ks, vs, dks, dvs, shares, factors in parts:
            torch.bmm(_times(shares, factors).mT, g, out=dvs)
            slopes = _times(torch.bmm(g, vs.mT), factors)
            slopes = torch._softmax_backward_data(slopes, shares, -1, shares.dtype)
            if ctx.is_biased:
                biases.append(slopes.clone())
            slopes.mul_(scale)
            torch.bmm(slopes, ks, out=dqs)
            torch.bmm(slopes.mT, qs, out=dks)
        pairs = (q_buckets, dq), (k_buckets, dk), (k_buckets, dv)
        dq, dk, dv = (buckets.take(d).to(grad.dtype) for buckets, d in pairs)
        return dq, dk, dv, None, None, None, *biases


class _RelativeBiases(Function):
    """Biases [B*H, L, L] of each bucket from a table [R, H] by relative position; a bank [T, R, H] by task."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, buckets: AttentionBuckets) -> tuple[Tensor, ...]:
        used = table[0] if table.dim() == 3 else table
        longest = max(length for _, length in buckets.shapes)
        ctx.index, ctx.buckets, ctx.shape = relative_buckets(longest, len(used), table.device), buckets, table.shape
        biases = []
        for rows, length in buckets.shapes:
            by_head = used[ctx.index[:length, :length]].permute(2, 0, 1)
            biases.append(by_head.expand(rows // buckets.heads, -1, -1, -1).reshape(rows, length, length))
        return tuple(biases)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        heads, tasks = ctx.buckets.heads, len(ctx.buckets.tasks) if len(ctx.shape) == 3 else 1
        table = grads[0].new_zeros(tasks, heads, ctx.shape[-2])
        for grad, of_sentence in zip(grads, ctx.buckets.sentence_tasks, strict=True):
            length = grad.shape[-1]
            each = grad.view(len(of_sentence), heads, length * length)
            if tasks == 1:
                summed = each.sum(0, keepdim=True)
            else:
                summed = each.new_zeros(tasks, *each.shape[1:]).index_add_(0, of_sentence, each)
            table.index_add_(2, ctx.index[:length, :length].reshape(-1), summed)
        return table.mT.reshape(ctx.shape), None


def relative_buckets(longest: int, count: int, device: torch.device, farthest: int = 128) -> Tensor:
    """Return the row of the table for each query and key by their relative position, int64 [longest, longest].

    Half of the `count` rows are for keys after the query. Of each half, the first half has one row for each distance,
    and the rows of the second half are for distances that grow logarithmically up to `farthest` (T5, Raffel et al.
    2020, arXiv:1910.10683; MPNet).
    """
    positions = torch.arange(longest)
    behind = positions[:, None] - positions[None, :]  # query less key
    half = count // 2
    exact, far = half // 2, behind.abs()
    wide = exact + ((far.float() / exact).log() / math.log(farthest / exact) * (half - exact)).long()
    bucket = torch.where(far < exact, far, wide.clamp(max=half - 1))
    return (bucket + half * (behind < 0)).to(device)


_linears: Callable[..., tuple[Tensor, ...]] = _Linears.apply

_task_norm: Callable[..., Tensor] = _TaskNorm.apply

_task_lookup: Callable[..., Tensor] = _TaskLookup.apply

attention: Callable[..., Tensor] = _Attention.apply
"""query, key, value rows, buckets of queries and of keys, dropout p, biases of each bucket -> rows [N', width]."""

relative_biases: Callable[[Tensor, AttentionBuckets], tuple[Tensor, ...]] = _RelativeBiases.apply
"""table [R, H] or bank [T, R, H], buckets of the keys -> biases [B*H, L, L] of each bucket."""


def lookup(table: Tensor, index: Tensor, tasks: tuple[int, ...]) -> Tensor:
    """Look up rows [N, W] of a table [V, W] or of a bank of tables."""
    return functional.embedding(index, table) if table.dim() == 2 else _task_lookup(table, index, tasks)


def by_task(x: Tensor, tasks: tuple[int, ...], parameters: tuple[Tensor, ...],
            is_by_task: bool = True) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
    """Yield the rows of x [N, in] and their parameters: those of each task, [T, ...], or all at once."""
    if not is_by_task:
        yield x, parameters
        return
    for number, rows in enumerate(x.split_with_sizes(tasks)):
        yield rows, tuple(parameter[number] for parameter in parameters)


def linears(x: Tensor, tasks: tuple[int, ...], *parameters: Tensor, is_private: bool = False) -> tuple[Tensor, ...]:
    """Return x W^T + b [N, out] for each pair (W, b), from x [N, in]; `tasks` holds the number of rows per task.

    The parameters are shared by all tasks, and then may be banks, or private: [T, out, in] and [T, out] of each task.
    """
    if not is_private:
        return _linears(x, tasks, *parameters)
    parts = [_linears(rows, (len(rows),), *own) for rows, own in by_task(x, tasks, parameters)]
    return tuple(torch.cat(of_layer) for of_layer in zip(*parts, strict=True))


def norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float, tasks: tuple[int, ...], *,
         is_private: bool = False) -> Tensor:
    """Return LayerNorm of x [N, W]; private weights [T, W] are those of each task."""
    if is_private:
        return torch.cat([functional.layer_norm(rows, rows.shape[-1:], w, b, eps)
                          for rows, (w, b) in by_task(x, tasks, (weight, bias))])
    if weight.dim() == 1:
        return functional.layer_norm(x, x.shape[-1:], weight, bias, eps)
    return _task_norm(x, weight, bias, eps, tasks)


def weighted_mean(states: Tensor, scores: Tensor, lengths: Tensor) -> Tensor:
    """Return the means [S, W] of states [N, W] of sentences, weighted by the softmax of their scores [N, 1].

    `lengths` int64 [S] holds the number of rows of each sentence.
    """
    highest = torch.segment_reduce(scores.detach(), "max", lengths=lengths, unsafe=True)
    shares = (scores - highest.repeat_interleave(lengths, 0)).exp()
    total, mixed = (torch.segment_reduce(x, "sum", lengths=lengths, unsafe=True) for x in (shares, shares * states))
    return mixed / total
