"""Encoder and heads as one torch module, and the gradients of its tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from .batches import Batch
from .combiners import Combiner
from .encoders import Packed
from .spec import Model
from .suites import Task


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
        """Return the scores [n, k] of a task from one embedding tensor [n, width] for each sentence."""
        return self.model.heads[task].scores(self.heads[task], embeddings)

    def losses(self, batch: Batch, parameters: dict[str, Tensor] | None = None) -> list[Tensor]:
        """Return the mean weighted loss of each of the batch's tasks; of a part of a step, its share of them."""
        blocks = self.embed(batch.packed, parameters).split_with_sizes(batch.packed.sections)
        losses = []
        for (name, labels), block in zip(batch.labels.items(), blocks, strict=True):
            head, sentences = self.model.heads[name], self.tasks[name].sentences
            scores = self.scores(name, block.tensor_split(sentences))
            each = head.loss.each(scores, labels, self.tasks[name])
            losses.append(head.weight * each.sum() / batch.examples[name])
        return losses

    def backward(self, batch: Batch, combiner: Combiner, random: np.random.Generator, parts: int = 1) -> Tensor:
        """Set every parameter's gradient for one step and return the losses [T].

        Where the step is computed in parts, to need less memory, gradients and losses are still those of the whole.
        """
        tasks = len(batch.labels)
        if combiner.needs_gram and tasks > 1 and not self.model.encoder.freeze:
            return self._surgery(batch, combiner, random, parts)
        # A single task, and heads on a frozen encoder, have no gradients to combine.
        weights = np.ones(tasks) if combiner.needs_gram else combiner.shared(np.zeros((tasks, tasks)), random)
        return self._accumulated(batch.split(parts), torch.from_numpy(weights))

    def _accumulated(self, parts: Iterable[Batch], weights: Tensor, banks: dict[str, Tensor] | None = None) -> Tensor:
        """Add the gradients of the weighted losses of a step's parts, and return the losses [T]."""
        shares = []
        for part in parts:
            losses = torch.stack(self.losses(part, banks))
            (losses * weights.to(losses)).sum().backward()  # type: ignore[no-untyped-call]
            shares.append(losses.detach())
        return torch.stack(shares).sum(0)

    def _surgery(self, batch: Batch, combiner: Combiner, random: np.random.Generator, parts: int) -> Tensor:
        """Take each task's own gradient of the shared parameters, and combine them.

        Rows of different tasks never mix inside the encoder. So one backward pass serves all tasks, with parameters
        that carry a leading task dimension [T, ...] and collect each task's rows apart. The word table takes part
        with the rows that the batch needs, numbered anew: the others have no gradient.
        """
        tasks, words = len(batch.labels), cast(str, self.encoder.words)
        shared = dict(self.encoder.named_parameters())
        rows, numbers = torch.unique(batch.packed.tokens, return_inverse=True)
        rows = rows.to(shared[words].device)
        used = {name: p.detach()[rows] if name == words else p.detach() for name, p in shared.items()}
        banks = {name: p.expand(tasks, *p.shape).requires_grad_() for name, p in used.items()}
        whole = replace(batch, packed=replace(batch.packed, tokens=numbers))
        losses = self._accumulated(whole.split(parts), torch.ones(tasks), banks)
        gradients = {name: bank.grad.flatten(1) for name, bank in banks.items() if bank.grad is not None}
        gram = sum((g @ g.T for g in gradients.values()), torch.zeros(tasks, tasks, device=losses.device))
        weights = torch.from_numpy(combiner.shared(gram.double().cpu().numpy(), random)).to(losses)
        for name, gradient in gradients.items():
            combined = (weights @ gradient).view_as(used[name])
            is_whole = name != words
            shared[name].grad = combined if is_whole else torch.zeros_like(shared[name]).index_copy_(0, rows, combined)
        return losses
