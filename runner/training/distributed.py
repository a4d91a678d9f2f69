"""Data-parallel training of one leaf by several ranks (processes) of one machine.

Each rank builds the whole batch, which is a function of seed and step, and computes its share of it; losses and
gradients are all-reduced (summed), and all ranks take the same optimizer step.
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
"""Timeout of collectives; another rank may be writing a checkpoint."""


class ProcessGroup:
    """The ranks that train one leaf, from the view of one of them; by default a single one."""

    def __init__(self, number: int = 0, count: int = 1) -> None:
        self.number, self.count = number, count
        """Rank of this process, from 0, and world size."""

    @classmethod
    def joined(cls, number: int, count: int, store: Any) -> ProcessGroup:
        """Initialize the process group by a rendezvous store. Raise RankLost if a rank does not join."""
        loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
        for library in ("GLOO", "NCCL"):
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", loopback)  # not reachable from other machines
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        with _lost_ranks_raised():
            dist.init_process_group(backend, store=store, rank=number, world_size=count, timeout=PATIENCE)
        return cls(number, count)

    def share(self, batch: Batch, parts: int) -> Iterator[Batch]:
        """Yield this rank's micro-batches of a batch split `parts` ways per rank; those of all ranks sum to the batch.

        With more ranks than examples, several ranks compute the same micro-batch, each with a fraction of its loss.
        """
        pieces = min(parts * self.count, batch.most)
        first = self.number % pieces
        duplicates = len(range(first, self.count, pieces)) or 1
        for part in batch.split(pieces, first, self.count):
            yield replace(part, examples={task: n * duplicates for task, n in part.examples.items()})

    def agree(self, number: int) -> int:
        """Return the maximum of a number over all ranks (all-reduce)."""
        if self.count == 1:
            return number
        maximum = torch.tensor(number)
        with _lost_ranks_raised():
            dist.all_reduce(maximum, dist.ReduceOp.MAX)
        return int(maximum)

    def add(self, tensor: Tensor) -> None:
        """Sum a tensor over all ranks in place (all-reduce)."""
        if self.count > 1:
            with _lost_ranks_raised():
                dist.all_reduce(tensor)

    @contextmanager
    def adding(self) -> Iterator[list[Tensor]]:
        """Yield a list; on exit, sum the float32 tensors put into it over all ranks, in place, in one all-reduce.

        Raise MemoryError on every rank if one of them runs out of memory.
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
def _lost_ranks_raised() -> Iterator[None]:
    """Turn errors of collectives, such as a dead rank or a timeout, into RankLost."""
    try:
        yield
    except RuntimeError as error:
        raise RankLost(f"another process that trains the leaf does not answer: {str(error).splitlines()[0]}") from None
