"""Matrix products in fp32 and bf16 by the fastest library for this processor.

torch computes fp32 products with MKL, which uses AVX-512 on Intel processors only. On AMD processors with AVX-512,
oneDNN takes less than half the time. The choice depends on nothing but processor, environment and shapes, so that a
resumed run equals an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from ....machine import limited_below_avx512, vendor
from .packing import ROUND

MIN_WEIGHTS = 1 << 16
"""Minimum number of weights for oneDNN, which compiles code for each new shape in up to 1 ms."""


@cache
def by_onednn() -> bool:
    """Return whether oneDNN computes large fp32 products on this processor."""
    has_both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return (has_both and vendor() == "AuthenticAMD" and torch.backends.cpu.get_cpu_capability() == "AVX512"
            and not limited_below_avx512() and hasattr(torch.ops.mkldnn, "_linear_pointwise"))


def _uses_onednn(x: Tensor, width: int, height: int) -> bool:
    """Return whether oneDNN computes the product of x and a matrix of this size."""
    return width * height >= MIN_WEIGHTS and x.dtype == torch.float32 and x.device.type == "cpu" and by_onednn()


def linear(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """Return x w^T + b [N, out] for x [N, in] and w [out, in]; not differentiable."""
    if _uses_onednn(x, *w.shape):
        return _onednn(x, w, b)
    return functional.linear(x, w, b)


def weight_gradients(grad: Tensor, x: Tensor, tasks: Sequence[int]) -> Tensor:
    """Return g^T x [T, out, in] for each task's rows g of grad [N, out] and rows of x [N, in]; not differentiable."""
    by_task = zip(grad.split_with_sizes(tasks), x.split_with_sizes(tasks), strict=True)
    if _uses_onednn(x, grad.shape[1], x.shape[1]):
        each = [_onednn(_padded(g).t(), _padded(rows).t()) for g, rows in by_task]
        return each[0][None] if len(each) == 1 else torch.stack(each)
    weights = grad.new_empty((len(tasks), grad.shape[1], x.shape[1]))
    for (g, rows), out in zip(by_task, weights, strict=True):
        torch.mm(g.t(), rows, out=out)
    return weights


def _padded(rows: Tensor) -> Tensor:
    """Pad rows [N, W] with zeros to a multiple of ROUND, since oneDNN compiles code for each N."""
    lacking = -len(rows) % ROUND
    return functional.pad(rows, (0, 0, 0, lacking)) if lacking else rows


def _onednn(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, w, b, "none", [], "")
    return product
