"""The word table as training sees it: the rows that occur, each batch's own numbered anew."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from .batches import Batch


class EmbeddingRows:
    """The rows of the word table that training meets, as a parameter of their own.

    Rows that never occur have neither gradients nor moments, and are not decayed; so the table is left as it is, and
    these rows are written back before it is read as a whole. A step touches few of them: its gradient lies in a buffer
    that stays, and is zero elsewhere.
    """

    def __init__(self, table: nn.Parameter, used: Tensor) -> None:
        self.table, self.used = table, used
        """The table [V, width] and the numbers of its rows that occur, int64 [U], rising, on the CPU."""
        self.rows = nn.Parameter(table.detach()[used.to(table.device)])
        """float32 [U, width]."""
        self.rows.grad = torch.zeros_like(self.rows)
        self.touched = used[:0]
        """Which of the rows have a gradient, int64."""

    def taken(self, batch: Batch) -> tuple[Tensor, Batch]:
        """Return the rows [R, width] that a batch needs, and the batch with its tokens numbered by these."""
        needed, numbers = torch.unique(batch.packed.tokens, return_inverse=True)
        self.touched = torch.searchsorted(self.used, needed).to(self.rows.device)
        renumbered = replace(batch.packed, tokens=numbers)
        return self.rows.detach().index_select(0, self.touched), replace(batch, packed=renumbered)

    def numbers(self, tokens: Tensor, renumbered: bool) -> Tensor:
        """Return which of the rows that training meets tokens are, int64 as `tokens`, on the CPU.

        `renumbered`: the tokens are of the batch that was taken last, not rows of the whole table.
        """
        return self.touched.cpu()[tokens] if renumbered else torch.searchsorted(self.used, tokens)

    def put(self, gradient: Tensor) -> None:
        """Set the gradient of the rows that were taken last, [R, width]."""
        cast(Tensor, self.rows.grad).index_copy_(0, self.touched, gradient)

    def gradient(self) -> Tensor:
        """Return the gradient of the rows that have one, [R, width]."""
        return cast(Tensor, self.rows.grad).index_select(0, self.touched)

    def clear(self) -> None:
        """Make the gradient zero."""
        cast(Tensor, self.rows.grad).index_fill_(0, self.touched, 0.0)

    def write_back(self) -> None:
        """Bring the table up to date."""
        self.table.data.index_copy_(0, self.used.to(self.table.device), self.rows.detach())

    def read_back(self) -> None:
        """Take the rows from the table."""
        self.rows.data.copy_(self.table.detach()[self.used.to(self.table.device)])
