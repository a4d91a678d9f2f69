"""Encoder and heads as one torch module, and the gradients of its tasks."""

from __future__ import annotations

from collections.abc import Mapping
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
        self.heads = nn.ModuleDict({name: head.build(width, tasks[name]) for name, head in model.heads.items()})
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

    def losses(self, batch: Batch, parameters: dict[str, Tensor] | None = None) -> Tensor:
        """Return the mean weighted loss of each of the batch's tasks, [T]."""
        blocks = self.embed(batch.packed, parameters).split_with_sizes(batch.packed.sections)
        losses = []
        for (name, labels), block in zip(batch.labels.items(), blocks, strict=True):
            head = self.model.heads[name]
            scores = self.scores(name, block.chunk(len(block) // len(labels)))
            losses.append(head.weight * head.loss.each(scores, labels, self.tasks[name]).mean())
        return torch.stack(losses)

    def backward(self, batch: Batch, combiner: Combiner, random: np.random.Generator) -> Tensor:
        """Set every parameter's gradient for one step and return the losses [T]."""
        tasks = len(batch.labels)
        if combiner.needs_gram and tasks > 1 and not self.model.encoder.freeze:
            return self._surgery(batch, combiner, random)
        losses = self.losses(batch)
        weights = combiner.shared(np.zeros((tasks, tasks)), random)
        (losses * torch.from_numpy(weights).to(losses)).sum().backward()  # type: ignore[no-untyped-call]
        return losses.detach()

    def _surgery(self, batch: Batch, combiner: Combiner, random: np.random.Generator) -> Tensor:
        """Take each task's own gradient of the shared parameters, and combine them.

        Rows of different tasks never mix inside the encoder. So one backward pass serves all tasks, with parameters
        that carry a leading task dimension [T, ...] and collect each task's rows apart.
        """
        tasks = len(batch.labels)
        shared = dict(self.encoder.named_parameters())
        banks = {name: p.detach().expand(tasks, *p.shape).requires_grad_() for name, p in shared.items()}
        losses = self.losses(batch, banks)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        gradients = {name: bank.grad.flatten(1) for name, bank in banks.items() if bank.grad is not None}
        gram = sum((g @ g.T for g in gradients.values()), torch.zeros(tasks, tasks, device=losses.device))
        weights = torch.from_numpy(combiner.shared(gram.double().cpu().numpy(), random)).to(losses)
        for name, gradient in gradients.items():
            shared[name].grad = (weights @ gradient).view_as(shared[name])
        return losses.detach()
