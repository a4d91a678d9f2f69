"""Ranks: the processes of one machine that train a leaf together, each a part of every batch.

Each makes the whole batch, which is a function of seed and step, and computes its part; losses and gradients are added
up, and all make the same step of the optimizer.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import RankLost
from . import memory
from .batches import Batch

LOOPBACK = "127.0.0.1"

PATIENCE = timedelta(minutes=30)
"""How long a rank waits for another one that lives, which may be writing a checkpoint."""


class ProcessGroup:
    """All processes that train one leaf, as one of them sees them; by default it is alone."""

    def __init__(self, number: int = 0, count: int = 1) -> None:
        self.number, self.count = number, count
        """Which one this is, from 0, and how many there are."""

    @classmethod
    def joined(cls, number: int, count: int, store: Any) -> ProcessGroup:
        """Return the ranks once all are there, which meet at a store. Raise RankLost where one does not come."""
        loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
        for library in ("GLOO", "NCCL"):
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", loopback)  # nobody else is to reach them
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        with _found():
            dist.init_process_group(backend, store=store, rank=number, world_size=count, timeout=PATIENCE)
        return cls(number, count)

    def share(self, batch: Batch, parts: int) -> Iterator[Batch]:
        """Yield what this rank computes of a batch, in so many parts; what all yield adds up to the batch.

        Where there are more ranks than examples, several compute the same part, each for its share.
        """
        pieces = min(parts * self.count, batch.most)
        mine = self.number % pieces
        alike = len(range(mine, self.count, pieces)) or 1
        for part in batch.split(pieces, mine, self.count):
            yield replace(part, examples={task: n * alike for task, n in part.examples.items()})

    def agree(self, number: int) -> int:
        """Return the largest number that a rank says."""
        if self.count == 1:
            return number
        said = torch.tensor(number)
        with _found():
            dist.all_reduce(said, dist.ReduceOp.MAX)
        return int(said)

    def add(self, tensor: Tensor) -> None:
        """Add a tensor up over all ranks, in place."""
        if self.count > 1:
            with _found():
                dist.all_reduce(tensor)

    @contextmanager
    def adding(self) -> Iterator[list[Tensor]]:
        """Add up over all ranks, in place and at once, the float32 tensors that are put into a list.

        Where memory runs out on one rank, raise MemoryError on all of them.
        """
        tensors: list[Tensor] = []
        if self.count == 1:
            yield tensors
            return
        try:
            yield tensors
            flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        except (RuntimeError, MemoryError) as error:
            if memory.is_exhausted(error):
                self.agree(1)
            raise
        if self.agree(0):
            raise MemoryError("memory ran out on another rank")
        self.add(flat)
        for tensor, total in zip(tensors, flat.split_with_sizes([t.numel() for t in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))


@contextmanager
def _found() -> Iterator[None]:
    """Raise RankLost where another rank is gone, or waited for in vain."""
    try:
        yield
    except RuntimeError as error:
        raise RankLost(f"another process that trains the leaf does not answer: {str(error).splitlines()[0]}") from None
