"""Layout of packed sentences, and the padded buckets in which their attention is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from .. import Packed

CANDIDATES = 33
"""Number of candidate boundaries between buckets."""

BUCKET_COST = 12_000
"""Overhead of one more bucket, in attention scores (measured on a CPU)."""

ROUND = 32
"""Rows are padded to a multiple of this: for each new shape of a bf16 product the CPU's library compiles code, which
takes half the time of the product."""


@dataclass(frozen=True)
class AttentionBuckets:
    """Padded buckets [B*H, L, D] of sentences of similar length, for multi-head attention over rows [N, H*D].

    A chunk is one head's part [D] of a row; the buckets have M slots for chunks in total. Padding rows after the N rows
    belong to no sentence: they have no slots, and `take` returns zeros for them.
    """

    heads: int
    tasks: tuple[int, ...]
    """Number of rows of each task, in order; padding rows are counted for the last task."""
    shapes: tuple[tuple[int, int], ...]
    """(B*H, L) of each bucket."""
    into: Tensor
    """int64 [M]: chunk in each slot; arbitrary for padding."""
    out_of: Tensor
    """int64 [N*H]: slot of each chunk."""
    real: Tensor
    """float32 [M, 1]: 1, or 0 for padding."""
    masks: tuple[Tensor, ...]
    """float32 [B*H, 1, L] of each bucket, added to attention scores: 0, or -inf for padding."""
    sentence_tasks: tuple[Tensor, ...]
    """int64 [B] of each bucket: task of each sentence."""

    def put(self, rows: Tensor) -> Tensor:
        """Gather rows [N.., H*D] into slots [M, D]."""
        return rows.reshape(len(rows) * self.heads, -1).index_select(0, self.into)

    def take(self, slots: Tensor) -> Tensor:
        """Gather slots [M, D] into rows [N.., H*D]."""
        rows, real = slots.new_empty(sum(self.tasks) * self.heads, slots.shape[1]), len(self.out_of)
        torch.index_select(slots, 0, self.out_of, out=rows[:real])
        rows[real:].zero_()
        return rows.view(-1, self.heads * slots.shape[1])

    def split(self, slots: Tensor) -> list[Tensor]:
        """Return views [B*H, L, D] of slots [M, D], one for each bucket."""
        parts = slots.split_with_sizes([batch * length for batch, length in self.shapes])
        return [part.view(*shape, -1) for part, shape in zip(parts, self.shapes, strict=True)]

    @classmethod
    def of(cls, slots: tuple[Tensor, Tensor], shapes: Sequence[tuple[int, int]], heads: int, tasks: tuple[int, ...],
           sentence_tasks: Tensor) -> AttentionBuckets:
        """Build the buckets of shapes (sentences, longest); `slots` are `into`, -1 for padding, and `out_of`.

        `sentence_tasks` int64 [S] holds the task of each sentence, in the order of the buckets.
        """
        into, out_of = slots
        per_head = tuple((batch * heads, length) for batch, length in shapes)
        real = (into >= 0).to(torch.float32)
        masks = real.log().split_with_sizes([batch * length for batch, length in per_head])
        masks = tuple(mask.view(batch, 1, length) for mask, (batch, length) in zip(masks, per_head, strict=True))
        return cls(heads, tasks, per_head, into.clamp(min=0), out_of, real[:, None], masks,
                   sentence_tasks.split_with_sizes([batch for batch, _ in shapes]))


@dataclass(frozen=True)
class PackedLayout:
    """Indices of one packed batch, computed on the CPU and copied to the device at once."""

    longest: int
    lengths: Tensor
    """int64 [S]: number of rows of each sentence."""
    starts: Tensor
    """int64 [S]: first row of each sentence, [CLS]."""
    positions: Tensor
    """int64 [N..]: position of each row in its sentence, plus `longest` in the second segment."""
    segments: int
    """1, or 2 if some rows are of a second segment."""
    rows: AttentionBuckets
    """All N rows and padding rows up to a multiple of ROUND."""
    first: AttentionBuckets
    """The S first rows, in buckets of length 1 that match those of `rows`."""

    @classmethod
    def of(cls, packed: Packed, heads: int, device: torch.device) -> PackedLayout:
        """Compute the layout of a packed batch."""
        lengths = packed.lengths.numpy()
        ends = np.cumsum(lengths)
        sentences, starts = np.repeat(np.arange(len(lengths)), lengths), ends - lengths
        positions = np.arange(len(sentences)) - starts[sentences]
        order = np.argsort(-lengths, kind="stable")
        shapes = _shapes(lengths[order], heads)
        flat = [(batch, 1) for batch, _ in shapes]
        rows = _slots(sentences, positions, order, shapes, heads)
        first = _slots(np.arange(len(lengths)), np.zeros_like(starts), order, flat, heads)
        second = 0 if packed.firsts is None else positions >= packed.firsts.numpy()[sentences]
        numbered = np.pad(positions + shapes[0][1] * second, (0, -len(positions) % ROUND))
        of_sentence = np.repeat(np.arange(len(packed.sections)), packed.sections)[order]
        on_device = _move([lengths, starts, numbered, *rows, *first, of_sentence], device)
        tasks = np.diff(np.append(0, ends)[np.cumsum([0, *packed.sections])])
        tasks[-1] += len(numbered) - len(positions)
        return cls(shapes[0][1], on_device[0], on_device[1], on_device[2], 1 if packed.firsts is None else 2,
                   rows=AttentionBuckets.of((on_device[3], on_device[4]), shapes, heads, tuple(tasks.tolist()),
                                            on_device[7]),
                   first=AttentionBuckets.of((on_device[5], on_device[6]), flat, heads, packed.sections, on_device[7]))


def _shapes(lengths: np.ndarray, heads: int) -> list[tuple[int, int]]:
    """Split descending lengths [S] into at most three buckets (sentences, longest) of least estimated cost."""
    count = len(lengths)
    cuts = np.unique(np.linspace(0, count, CANDIDATES).astype(np.int64))
    area = np.append(lengths, 0)[cuts].astype(np.float64) ** 2
    first, second = cuts[:, None], cuts[None, :]
    scores = first * area[0] + (second - first) * area[:, None] + (count - second) * area[None, :]
    groups = (first > 0) + (second > first).astype(np.int64) + (second < count)
    cost = np.where(first <= second, scores * heads + groups * BUCKET_COST, np.inf)
    chosen = np.unravel_index(np.argmin(cost), cost.shape)
    bounds = sorted({0, *cuts[list(chosen)].tolist(), count})
    return [(end - start, int(lengths[start])) for start, end in pairwise(bounds)]


def _slots(sentences: np.ndarray, positions: np.ndarray, order: np.ndarray, shapes: list[tuple[int, int]],
            heads: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the chunk of each slot [M], -1 for padding, and the slot of each chunk [N*H].

    `sentences` and `positions` [N] are those of each row, `order` [S] is the order of the sentences in the buckets.
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
    """Move integer arrays to a device in a single copy."""
    whole = torch.from_numpy(np.concatenate(arrays)).to(device)
    return list(whole.split_with_sizes([len(array) for array in arrays]))
