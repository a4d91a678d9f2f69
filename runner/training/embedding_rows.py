"""Trainable subset of the word-embedding table: the rows whose tokens occur in the training data."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from .batches import Batch


class EmbeddingRows:
    """Rows of the word-embedding table that occur in the training data, as a parameter of their own.

    Other rows have no gradient, no optimizer state and no weight decay: the table keeps them, and `write_back` updates
    it before it is read as a whole. A step needs few of the rows; its gradient is scattered into a persistent buffer
    that is zero elsewhere.
    """

    def __init__(self, table: nn.Parameter, used: Tensor) -> None:
        self.table, self.used = table, used
        """The table [V, width], and the ids of its rows that occur, int64 [U], ascending, on the CPU."""
        self.rows = nn.Parameter(table.detach()[used.to(table.device)])
        """The trained parameter, float32 [U, width]."""
        self.rows.grad = torch.zeros_like(self.rows)
        self.touched = used[:0]
        """Indices into `rows` that have a gradient: those of the last batch, int64 [R]."""

    def gather(self, batch: Batch) -> tuple[Tensor, Batch]:
        """Return the rows [R, width] that a batch needs, and the batch with its token ids renumbered to index them."""
        needed, indices = torch.unique(batch.packed.tokens, return_inverse=True)
        self.touched = torch.searchsorted(self.used, needed).to(self.rows.device)
        renumbered = replace(batch.packed, tokens=indices)
        return self.rows.detach().index_select(0, self.touched), replace(batch, packed=renumbered)

    def indices(self, tokens: Tensor, renumbered: bool) -> Tensor:
        """Return the indices into `rows` of token ids, int64 in the shape of `tokens`, on the CPU.

        `renumbered`: the ids are those of the last gathered batch, not rows of the whole table.
        """
        return self.touched.cpu()[tokens] if renumbered else torch.searchsorted(self.used, tokens)

    def set_gradient(self, gradient: Tensor) -> None:
        """Set the gradient [R, width] of the rows gathered last."""
        cast(Tensor, self.rows.grad).index_copy_(0, self.touched, gradient)

    def gradient(self) -> Tensor:
        """Return the gradient [R, width] of the rows gathered last."""
        return cast(Tensor, self.rows.grad).index_select(0, self.touched)

    def clear(self) -> None:
        """Zero the gradient."""
        cast(Tensor, self.rows.grad).index_fill_(0, self.touched, 0.0)

    def write_back(self) -> None:
        """Copy the trained rows into the table."""
        self.table.data.index_copy_(0, self.used.to(self.table.device), self.rows.detach())

    def read_back(self) -> None:
        """Copy the rows from the table."""
        self.rows.data.copy_(self.table.detach()[self.used.to(self.table.device)])
