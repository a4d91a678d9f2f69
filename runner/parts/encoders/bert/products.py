"""Matrix products in fp32 and bf16, by the library that computes them fastest on this processor.

torch has MKL compute fp32, which uses AVX-512 on Intel's processors only. On AMD's that have it, oneDNN takes less than
half the time. Which library it is depends on nothing but processor, environment and shapes, so that a run that goes on
equals one that never stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from .... import machine
from .packing import ROUND

LEAST = 1 << 16
"""Weights of the smallest layer for which oneDNN's code, made for each new shape in up to 1 ms, pays."""


@cache
def by_onednn() -> bool:
    """Tell whether large fp32 products are oneDNN's on this processor."""
    has_both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return (has_both and machine.vendor() == "AuthenticAMD" and torch.backends.cpu.get_cpu_capability() == "AVX512"
            and not machine.limited_below_avx512() and hasattr(torch.ops.mkldnn, "_linear_pointwise"))


def _fits(x: Tensor, width: int, height: int) -> bool:
    """Tell whether oneDNN takes a product of x and a matrix of such a size."""
    return width * height >= LEAST and x.dtype == torch.float32 and x.device.type == "cpu" and by_onednn()


def linear(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """Return x w^T + b [N, out] of x [N, in] and w [out, in]; no gradient passes."""
    if _fits(x, *w.shape):
        return _onednn(x, w, b)
    return functional.linear(x, w, b)


def across(grad: Tensor, x: Tensor, tasks: Sequence[int]) -> Tensor:
    """Return g^T x [T, out, in] of each task's rows g of grad [N, out] and of x [N, in]; no gradient passes."""
    by_task = zip(grad.split_with_sizes(tasks), x.split_with_sizes(tasks), strict=True)
    if _fits(x, grad.shape[1], x.shape[1]):
        each = [_onednn(_filled(g).t(), _filled(rows).t()) for g, rows in by_task]
        return each[0][None] if len(each) == 1 else torch.stack(each)
    weights = grad.new_empty((len(tasks), grad.shape[1], x.shape[1]))
    for (g, rows), out in zip(by_task, weights, strict=True):
        torch.mm(g.t(), rows, out=out)
    return weights


def _filled(rows: Tensor) -> Tensor:
    """Return rows [N, W] filled up by zeros to a multiple of ROUND, since oneDNN makes code for each N."""
    lacking = -len(rows) % ROUND
    return functional.pad(rows, (0, 0, 0, lacking)) if lacking else rows


def _onednn(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, w, b, "none", [], "")
    return product
