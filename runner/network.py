"""Encoder and heads as one torch module, and the gradients of its tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from .batches import Batch
from .combiners import Combiner
from .encoders import Packed
from .spec import Model
from .suites import Task


class Words:
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


class Network(nn.Module):
    """A leaf's encoder and its heads: sentences in, scores of every task out."""

    def __init__(self, model: Model, tasks: Mapping[str, Task], encoder: nn.Module) -> None:
        super().__init__()
        self.model, self.tasks = model, tasks
        self.encoder = encoder.requires_grad_(not model.encoder.freeze)
        width = cast(int, encoder.width)
        heads = sorted(model.heads.items())  # the order of keys in a spec must not change the weights that are drawn
        self.heads = nn.ModuleDict({name: head.build(width, tasks[name]) for name, head in heads})
        self.dropout = nn.Dropout(model.encoder.dropout)
        self.words: Words | None = None
        self.words_name = cast(str, encoder.words)
        self.gram: np.ndarray | None = None
        """Inner products [T, T] of the task gradients of the last step, where they were taken apart."""

    def narrow(self, used: Tensor) -> dict[str, nn.Parameter]:
        """Train only some rows of the word table, int64 [U]; return all parameters that are trained, by name."""
        trained = {name: p for name, p in self.named_parameters() if p.requires_grad}
        name = f"encoder.{self.words_name}"
        if name in trained:
            self.words = Words(trained[name], used)
            trained[name] = self.words.rows
        return trained

    def groups(self, trained: Mapping[str, nn.Parameter]) -> list[dict[str, Any]]:
        """Return trained parameters in torch's groups (`params`), each with its `share` of the learning rate.

        There is one group where `layer_decay` is 1.
        """
        decay = self.model.optimizer.layer_decay
        groups: dict[float, list[nn.Parameter]] = {}
        for name, parameter in trained.items():
            part, _, own = name.partition(".")
            share = decay ** self._depth(own) if part == "encoder" and decay < 1 else 1.0
            groups.setdefault(share, []).append(parameter)
        return [{"params": parameters, "share": share} for share, parameters in groups.items()]

    def _depth(self, name: str) -> int:
        return cast("Callable[[str], int]", self.encoder.depth)(name)

    def write_back(self) -> None:
        """Bring the word table up to date, before it is read as a whole."""
        if self.words:
            self.words.write_back()

    def read_back(self) -> None:
        """Go on from the word table as it is."""
        if self.words:
            self.words.read_back()

    def clear(self) -> None:
        """Forget all gradients."""
        self.zero_grad()
        if self.words:
            self.words.clear()

    def gradients(self) -> dict[str, Tensor]:
        """Return the gradients by name; of the word table, the rows that have one."""
        found = {name: p.grad for name, p in self.named_parameters() if p.grad is not None}
        return found | ({f"encoder.{self.words_name}": self.words.gradient()} if self.words else {})

    def embed(self, packed: Packed, parameters: dict[str, Tensor] | None = None) -> Tensor:
        """Return the embeddings [S, width] of packed sentences, with other encoder parameters where given."""
        bf16 = self.model.train.precision == "bf16"
        with torch.autocast(next(self.encoder.parameters()).device.type, torch.bfloat16, enabled=bf16):
            if parameters is None:
                embeddings = self.encoder(packed)
            else:
                embeddings = torch.func.functional_call(self.encoder, parameters, (packed,))
        return cast(Tensor, self.dropout(embeddings.float()))

    def scores(self, task: str, embeddings: tuple[Tensor, ...]) -> Tensor:
        """Return the scores [n, k] of a task from one embedding tensor [n, width] for each sentence, or of both."""
        return self.model.heads[task].scores(self.heads[task], embeddings)

    def losses(self, batch: Batch, parameters: dict[str, Tensor] | None = None) -> list[Tensor]:
        """Return the mean weighted loss of each of the batch's tasks; of a part of a step, its share of them."""
        blocks = self.embed(batch.packed, parameters).split_with_sizes(batch.packed.sections)
        losses = []
        for (name, labels), block in zip(batch.labels.items(), blocks, strict=True):
            head = self.model.heads[name]
            scores = self.scores(name, block.tensor_split(len(block) // len(labels)))
            each = head.loss.each(scores, labels, self.tasks[name])
            losses.append(head.weight * each.sum() / batch.examples[name])
        return losses

    def backward(self, batch: Batch, combiner: Combiner, random: np.random.Generator, parts: int = 1,
                 compare: bool = False) -> Tensor:
        """Set every parameter's gradient for one step and return the losses [T].

        Where the step is computed in parts, to need less memory, gradients and losses are still those of the whole.
        Afterwards `gram` holds the inner products of the task gradients where the combiner needs them, or with
        `compare`.
        """
        tasks = len(batch.labels)
        self.gram = None
        weights = np.ones(tasks) if combiner.needs_gram else combiner.shared(np.zeros((tasks, tasks)), random)
        if self.words is None:  # heads on a frozen encoder have no gradients to combine
            return self._accumulated(batch.split(parts), weights)
        rows, batch = self.words.taken(batch)
        shared = dict(self.encoder.named_parameters()) | {self.words_name: rows}
        if tasks > 1 and (combiner.needs_gram or compare):
            return self._surgery(batch.split(parts), combiner, random, weights, shared)
        losses = self._accumulated(batch.split(parts), weights, {self.words_name: rows.requires_grad_()})
        self.words.put(cast(Tensor, rows.grad))
        return losses

    def _accumulated(self, parts: Iterable[Batch], weights: np.ndarray,
                     replaced: dict[str, Tensor] | None = None) -> Tensor:
        """Add the gradients of the weighted losses of a step's parts, and return the losses [T]."""
        shares = []
        for part in parts:
            losses = torch.stack(self.losses(part, replaced))
            (losses * torch.from_numpy(weights).to(losses)).sum().backward()  # type: ignore[no-untyped-call]
            shares.append(losses.detach())
        return torch.stack(shares).sum(0)

    def _surgery(self, parts: Iterable[Batch], combiner: Combiner, random: np.random.Generator, weights: np.ndarray,
                 shared: Mapping[str, Tensor]) -> Tensor:
        """Take each task's own gradient of the shared parameters, and combine them.

        Rows of different tasks never mix inside the encoder. So one backward pass serves all tasks, with parameters
        that carry a leading task dimension [T, ...] and collect each task's rows apart.
        """
        assert self.words is not None
        tasks, own = len(weights), dict(self.encoder.named_parameters())
        banks = {name: p.detach().expand(tasks, *p.shape).requires_grad_() for name, p in shared.items()}
        losses = self._accumulated(parts, weights, banks)
        gradients = {name: bank.grad.flatten(1) for name, bank in banks.items() if bank.grad is not None}
        gram = sum((g @ g.T for g in gradients.values()), torch.zeros(tasks, tasks, device=losses.device))
        self.gram = gram.double().cpu().numpy()
        chosen = combiner.shared(self.gram, random) if combiner.needs_gram else np.ones(tasks)
        coefficients = torch.from_numpy(chosen).to(losses)
        for name, gradient in gradients.items():
            combined = (coefficients @ gradient).view_as(shared[name])
            if name == self.words_name:
                self.words.put(combined)
            else:
                own[name].grad = combined
        return losses
