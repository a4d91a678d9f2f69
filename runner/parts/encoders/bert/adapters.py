"""Modules that adapters (`runner.parts.adapters`) add to the packed encoder.

A parameter that all tasks share may be replaced by a bank, and one of each task has a leading task dimension itself:
in both cases [T, ...] is used by row t for the rows of the batch's task t.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .ops import attention, by_task, dropout, linears
from .packing import AttentionBuckets


class LowRank(nn.Module):
    """Low-rank update of a frozen linear layer; with a magnitude, of its direction (DoRA)."""

    def __init__(self, weight: Tensor, rank: int, scale: float, dropout: float, tasks: int, *,
                 has_magnitude: bool) -> None:
        super().__init__()
        self.scale, self.dropout, self.is_private = scale, dropout, tasks > 0
        outputs, inputs = weight.shape
        leading = (tasks,) * (tasks > 0)
        bound = inputs ** -0.5  # as `nn.Linear`, and as the code of the paper
        self.down = nn.Parameter(torch.empty(*leading, rank, inputs).uniform_(-bound, bound))
        self.up = nn.Parameter(torch.zeros(*leading, outputs, rank))
        norms = weight.detach().norm(dim=1).expand(*leading, outputs)
        self.magnitude = nn.Parameter(norms.clone()) if has_magnitude else None

    def forward(self, x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, tasks: tuple[int, ...]) -> Tensor:
        """Return the layer's output [N, out] with the update; y is that without, x [N, in] the input."""
        outputs = y.split_with_sizes(tasks) if self.down.dim() == 3 else (y,)
        parts = []
        for (rows, (down, up, *magnitude)), output in zip(
                by_task(x, tasks, self._factors(), self.down.dim() == 3), outputs, strict=True):
            thin = functional.linear(dropout(rows, self.dropout if self.training else 0.0), down)
            update = functional.linear(thin, up)
            if magnitude:
                share = (magnitude[0] / self._norms(weight, down, up)).to(update.dtype)
                offset = bias.to(update.dtype)
                parts.append(torch.addcmul(offset, torch.add(output - offset, update, alpha=self.scale), share))
            else:
                parts.append(torch.add(output, update, alpha=self.scale))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def merged(self, weight: Tensor, task: int) -> Tensor:
        """Return the weight [out, in] with the update, that of a task if each has its own."""
        down, up, *magnitude = (p.detach()[task] if self.is_private else p.detach() for p in self._factors())
        whole = torch.addmm(weight, up, down, alpha=self.scale)
        return whole * (magnitude[0] / whole.norm(dim=1))[:, None] if magnitude else whole

    def _factors(self) -> tuple[Tensor, ...]:
        return (self.down, self.up) if self.magnitude is None else (self.down, self.up, self.magnitude)

    @torch.no_grad()
    def _norms(self, weight: Tensor, down: Tensor, up: Tensor) -> Tensor:
        """Return the norm [out] of each row of the updated weight, as a constant."""
        with torch.autocast(weight.device.type, enabled=False):
            norms: Tensor = torch.addmm(weight, up, down, alpha=self.scale).norm(dim=1)
        return norms


class Bottleneck(nn.Module):
    """x + up(GELU(down(x))), with a narrow width between."""

    def __init__(self, width: int, size: int, tasks: int) -> None:
        super().__init__()
        self.is_private = tasks > 0
        leading = (tasks,) * (tasks > 0)
        self.down, self.up = (nn.Parameter(torch.empty(*leading, *shape)) for shape in ((size, width), (width, size)))
        self.down_bias, self.up_bias = (nn.Parameter(torch.zeros(*leading, count)) for count in (size, width))
        for weight in (self.down, self.up):  # close to the identity, as in the paper
            nn.init.trunc_normal_(weight, std=0.01, a=-0.02, b=0.02)

    def forward(self, x: Tensor, tasks: tuple[int, ...]) -> Tensor:
        """Return [N, width] from x [N, width]."""
        parts = []
        parameters = (self.down, self.down_bias, self.up, self.up_bias)
        for rows, (down, down_bias, up, up_bias) in by_task(x, tasks, parameters, self.down.dim() == 3):
            inner = functional.gelu(functional.linear(rows, down, down_bias))
            parts.append(rows + functional.linear(inner, up, up_bias))
        return parts[0] if len(parts) == 1 else torch.cat(parts)


class PrivateLinear(nn.Module):
    """Linear layer of each task."""

    is_private = True

    def __init__(self, inputs: int, outputs: int, tasks: int, *, is_zero: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(tasks, outputs, inputs).normal_(0, 0.0 if is_zero else 0.02))
        self.bias = nn.Parameter(torch.zeros(tasks, outputs))

    def forward(self, x: Tensor, tasks: tuple[int, ...]) -> Tensor:
        """Return [N, outputs] from x [N, inputs]."""
        (result,) = linears(x, tasks, self.weight, self.bias, is_private=True)
        return result


class ProjectedAttention(nn.Module):
    """Attention of each task beside each layer, in a narrow width (Stickland and Murray 2019)."""

    def __init__(self, width: int, size: int, layers: int, tasks: int) -> None:
        super().__init__()
        self.down, self.up = PrivateLinear(width, size, tasks), PrivateLinear(size, width, tasks, is_zero=True)
        self.queries, self.keys, self.values = (
            nn.ModuleList(PrivateLinear(size, size, tasks) for _ in range(layers)) for _ in range(3))

    def forward(self, layer: int, queries: Tensor, keys: Tensor, q_buckets: AttentionBuckets,
                k_buckets: AttentionBuckets, p: float) -> Tensor:
        """Return what is added to the output rows [N', W] of a layer with the input rows `queries` and `keys`."""
        narrow = self.down(keys, k_buckets.tasks)
        narrow_queries = narrow if queries is keys else self.down(queries, q_buckets.tasks)
        query = self.queries[layer](narrow_queries, q_buckets.tasks)
        key, value = (of_layer[layer](narrow, k_buckets.tasks) for of_layer in (self.keys, self.values))
        mixed = attention(query, key, value, q_buckets, k_buckets, p)
        return functional.gelu(self.up(mixed, q_buckets.tasks))


def make_private(block: nn.Module, tasks: int) -> None:
    """Give each task its own trained copy of the parameters of a block, [tasks, ...]."""
    for module in block.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            copies = parameter.detach().expand(tasks, *parameter.shape).clone()
            setattr(module, name, nn.Parameter(copies))
            vars(module)["is_private"] = True
