"""Where the rows of packed sentences stand, and the rectangles in which their attention is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from .. import Packed

CANDIDATES = 33
"""How many places are tried for the cuts between rectangles."""

RECTANGLE = 12_000
"""What one more rectangle costs, as a number of attention scores (measured on a CPU)."""

ROUND = 32
"""Rows are filled up to a multiple of this: for each new shape of a bf16 product the CPU's library makes new code, in
half the time of the product."""


@dataclass(frozen=True)
class AttentionBuckets:
    """Rectangles of sentences [B*H, L, D] that hold each head's chunk of N rows [N, H*D], end to end in M places.

    Behind the N rows there may be some that belong to no sentence: no place holds them, and what is taken is zero.
    """

    heads: int
    tasks: tuple[int, ...]
    """How many rows belong to each task, in order; those of no sentence count as the last task's."""
    shapes: tuple[tuple[int, int], ...]
    """(B*H, L) of each rectangle."""
    into: Tensor
    """int64 [M]: number of the chunk in each place; any number where there is padding."""
    out_of: Tensor
    """int64 [N*H]: the place of each chunk."""
    real: Tensor
    """float32 [M, 1]: 1, and 0 where there is padding."""
    masks: tuple[Tensor, ...]
    """float32 [B*H, 1, L] of each rectangle: 0, and -inf where there is padding."""

    def put(self, rows: Tensor) -> Tensor:
        """Return rows [N.., H*D] as places [M, D]."""
        return rows.reshape(len(rows) * self.heads, -1).index_select(0, self.into)

    def take(self, places: Tensor) -> Tensor:
        """Return places [M, D] as rows [N.., H*D]."""
        rows, real = places.new_empty(sum(self.tasks) * self.heads, places.shape[1]), len(self.out_of)
        torch.index_select(places, 0, self.out_of, out=rows[:real])
        rows[real:].zero_()
        return rows.view(-1, self.heads * places.shape[1])

    def split(self, places: Tensor) -> list[Tensor]:
        """Return places [M, D] as views [B*H, L, D], one for each rectangle."""
        parts = places.split_with_sizes([batch * length for batch, length in self.shapes])
        return [part.view(*shape, -1) for part, shape in zip(parts, self.shapes, strict=True)]

    @classmethod
    def of(cls, into: Tensor, out_of: Tensor, shapes: Sequence[tuple[int, int]], heads: int,
           tasks: tuple[int, ...]) -> AttentionBuckets:
        """Return the grid of (sentences, longest) shapes; `into` is -1 where there is padding."""
        per_head = tuple((batch * heads, length) for batch, length in shapes)
        real = (into >= 0).to(torch.float32)
        masks = real.log().split_with_sizes([batch * length for batch, length in per_head])
        masks = tuple(mask.view(batch, 1, length) for mask, (batch, length) in zip(masks, per_head, strict=True))
        return cls(heads, tasks, per_head, into.clamp(min=0), out_of, real[:, None], masks)


@dataclass(frozen=True)
class PackedLayout:
    """The indices of one pack, computed once on the CPU and moved to the device in one piece."""

    longest: int
    lengths: Tensor
    """int64 [S]: rows of each sentence."""
    starts: Tensor
    """int64 [S]: the first row of each sentence, that of [CLS]."""
    positions: Tensor
    """int64 [N..]: position of each row in its sentence; `longest` more where it is of a second segment."""
    segments: int
    """1, or 2 where some rows are of a second segment."""
    rows: AttentionBuckets
    """All N rows, and those that fill them up to a multiple of ROUND."""
    first: AttentionBuckets
    """The S first rows, in rectangles of length 1 that match those of `rows`."""

    @classmethod
    def of(cls, packed: Packed, heads: int, device: torch.device) -> PackedLayout:
        """Return the layout of a pack for attention with so many heads."""
        lengths = packed.lengths.numpy()
        ends = np.cumsum(lengths)
        sentences, starts = np.repeat(np.arange(len(lengths)), lengths), ends - lengths
        positions = np.arange(len(sentences)) - starts[sentences]
        order = np.argsort(-lengths, kind="stable")
        shapes = _shapes(lengths[order], heads)
        flat = [(batch, 1) for batch, _ in shapes]
        rows = _places(sentences, positions, order, shapes, heads)
        first = _places(np.arange(len(lengths)), np.zeros_like(starts), order, flat, heads)
        second = 0 if packed.firsts is None else positions >= packed.firsts.numpy()[sentences]
        numbered = np.pad(positions + shapes[0][1] * second, (0, -len(positions) % ROUND))
        moved = _move([lengths, starts, numbered, *rows, *first], device)
        tasks = np.diff(np.append(0, ends)[np.cumsum([0, *packed.sections])])
        tasks[-1] += len(numbered) - len(positions)
        return cls(shapes[0][1], moved[0], moved[1], moved[2], 1 if packed.firsts is None else 2,
                   rows=AttentionBuckets.of(moved[3], moved[4], shapes, heads, tuple(tasks.tolist())),
                   first=AttentionBuckets.of(moved[5], moved[6], flat, heads, packed.sections))


def _shapes(lengths: np.ndarray, heads: int) -> list[tuple[int, int]]:
    """Return (sentences, longest) of at most three groups of falling lengths [S] that need the fewest scores."""
    count = len(lengths)
    cuts = np.unique(np.linspace(0, count, CANDIDATES).astype(np.int64))
    area = np.append(lengths, 0)[cuts].astype(np.float64) ** 2
    first, second = cuts[:, None], cuts[None, :]
    scores = first * area[0] + (second - first) * area[:, None] + (count - second) * area[None, :]
    groups = (first > 0) + (second > first).astype(np.int64) + (second < count)
    cost = np.where(first <= second, scores * heads + groups * RECTANGLE, np.inf)
    chosen = np.unravel_index(np.argmin(cost), cost.shape)
    bounds = sorted({0, *cuts[list(chosen)].tolist(), count})
    return [(end - start, int(lengths[start])) for start, end in pairwise(bounds)]


def _places(sentences: np.ndarray, positions: np.ndarray, order: np.ndarray, shapes: list[tuple[int, int]],
            heads: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the chunk of each place [M], -1 where there is padding, and the place of each chunk [N*H].

    `sentences` and `positions` [N] say where each row stands, `order` [S] is that of the sentences in the rectangles.
    """
    batches, lengths = np.array(shapes).T
    room = np.repeat(lengths, batches)
    length, start = np.empty_like(room), np.empty_like(room)
    length[order], start[order] = room, (np.cumsum(room) - room) * heads
    out_of = (start[sentences] + positions)[:, None] + length[sentences][:, None] * np.arange(heads)
    into = np.full(room.sum() * heads, -1)
    into[out_of] = np.arange(out_of.size).reshape(out_of.shape)
    return into, out_of.ravel()


def _move(arrays: list[np.ndarray], device: torch.device) -> list[Tensor]:
    """Return integer arrays as tensors on a device after a single copy."""
    whole = torch.from_numpy(np.concatenate(arrays)).to(device)
    return list(whole.split_with_sizes([len(array) for array in arrays]))
