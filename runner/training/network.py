"""Encoder and heads as one torch module, and the gradients of its tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..parts.combiners import Combiner
from ..parts.encoders import Packed
from ..specs.spec import Model
from ..tasks.data import Task
from . import masked_lm
from .batches import Batch
from .distributed import ProcessGroup
from .embedding_rows import EmbeddingRows


class Network(nn.Module):
    """A leaf's encoder and its heads: sentences in, scores of every task out."""

    def __init__(self, model: Model, tasks: Mapping[str, Task], encoder: nn.Module) -> None:
        super().__init__()
        self.model, self.tasks = model, tasks
        self.encoder = encoder.requires_grad_(not model.encoder.freeze)
        width = cast(int, encoder.width)
        heads = sorted(model.heads.items())  # the order of keys in a spec must not change the weights that are drawn
        self.heads = nn.ModuleDict({name: head.build(width, tasks[name]) for name, head in heads})
        self.regularizer = nn.Module()
        """Layers that the regularizer learns with, while training; they are no part of what is kept of a leaf."""
        self.dropout = nn.Dropout(model.encoder.dropout)
        self.words: EmbeddingRows | None = None
        self.words_name = cast(str, encoder.words)
        self.start: dict[str, Tensor] = {}
        """The encoder's parameters before training, but for the word table, where the regularizer needs them."""
        self.ranks = ProcessGroup()
        """With whom it is trained."""
        self.gram: np.ndarray | None = None
        """Inner products [T, T] of the task gradients of the last step, where they were taken apart."""

    def narrow(self, used: Tensor) -> dict[str, nn.Parameter]:
        """Return all parameters that are to be trained, by name: of the word table only some rows, int64 [U].

        What else training needs is made here, too: the regularizer's own layers and the weights that it falls back to.
        """
        if self.model.regularizer:
            self.regularizer = self.model.regularizer.build(cast(int, self.encoder.width))
            self.regularizer.to(next(self.encoder.parameters()).device)
        if self.model.regularizer and self.model.regularizer.needs_start:
            self.start = {name: p.detach().clone() for name, p in self.encoder.named_parameters()
                          if name != self.words_name}
        trained = {name: p for name, p in self.named_parameters() if p.requires_grad}
        name = f"encoder.{self.words_name}"
        if name in trained:
            self.words = EmbeddingRows(trained[name], used)
            trained[name] = self.words.rows
        return trained

    def weights(self) -> dict[str, Tensor]:
        """Return what is kept of a trained leaf, by name: its encoder and its heads."""
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("regularizer.")}

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
        with self.precision():
            if parameters is None:
                embeddings = self.encoder(packed)
            else:
                embeddings = torch.func.functional_call(self.encoder, parameters, (packed,))
        return cast(Tensor, self.dropout(embeddings.float()))

    def precision(self) -> torch.autocast:
        """Return a context in which the encoder computes in the precision that the spec says."""
        bf16 = self.model.train.precision == "bf16"
        return torch.autocast(next(self.encoder.parameters()).device.type, torch.bfloat16, enabled=bf16)

    def scores(self, task: str, embeddings: tuple[Tensor, ...]) -> Tensor:
        """Return the scores [n, k] of a task from one embedding tensor [n, width] for each sentence, or of both."""
        return self.model.heads[task].scores(self.heads[task], embeddings)

    def losses(self, batch: Batch, parameters: dict[str, Tensor] | None = None) -> list[Tensor]:
        """Return the mean weighted loss of each of the batch's tasks; of a part of a step, its share of them."""
        step, regularizer = NetworkStep(self, batch, parameters), self.model.regularizer
        return regularizer.losses(step) if regularizer else step.losses(step.scores())

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
            return self._accumulated(batch, parts, weights)
        rows, batch = self.words.taken(batch)
        shared = dict(self.encoder.named_parameters()) | {self.words_name: rows}
        if tasks > 1 and (combiner.needs_gram or compare):
            return self._surgery(batch, parts, combiner, random, weights, shared)
        losses = self._accumulated(batch, parts, weights, {self.words_name: rows.requires_grad_()})
        self.words.put(cast(Tensor, rows.grad))
        return losses

    def _accumulated(self, batch: Batch, parts: int, weights: np.ndarray,
                     replaced: dict[str, Tensor] | None = None) -> Tensor:
        """Add the gradients of the weighted losses of a step's parts, and return the losses [T]."""
        shares = []
        with self.ranks.adding() as sums:
            for part in self.ranks.share(batch, parts):
                losses = torch.stack(self.losses(part, replaced))
                (losses * torch.from_numpy(weights).to(losses)).sum().backward()  # type: ignore[no-untyped-call]
                shares.append(losses.detach())
            total = torch.stack(shares).sum(0)
            parameters = (*self.parameters(), *(replaced or {}).values())
            sums += [total, *(p.grad for p in parameters if p.grad is not None)]
        return total

    def _surgery(self, batch: Batch, parts: int, combiner: Combiner, random: np.random.Generator,
                 weights: np.ndarray, shared: Mapping[str, Tensor]) -> Tensor:
        """Take each task's own gradient of the shared parameters, and combine them.

        Rows of different tasks never mix inside the encoder. So one backward pass serves all tasks, with parameters
        that carry a leading task dimension [T, ...] and collect each task's rows apart.
        """
        assert self.words is not None
        tasks, own = len(weights), dict(self.encoder.named_parameters())
        banks = {name: p.detach().expand(tasks, *p.shape).requires_grad_() for name, p in shared.items()}
        losses = self._accumulated(batch, parts, weights, banks)
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


@dataclass(frozen=True)
class NetworkStep:
    """What a regularizer sees of one step, or of a part of it (runner/regularizers)."""

    network: Network
    batch: Batch
    replaced: Mapping[str, Tensor] | None = None
    """What stands in for some of the encoder's parameters, by name, so that gradients are taken apart."""

    @property
    def parameters(self) -> dict[str, Tensor]:
        """The encoder's parameters by name; a bank [T, ...] where the tasks' gradients are taken apart."""
        return {**dict(self.network.encoder.named_parameters()), **(self.replaced or {})}

    @property
    def start(self) -> Mapping[str, Tensor]:
        """The encoder's parameters as training began, but for the word table."""
        return self.network.start

    @property
    def words(self) -> Tensor:
        """The word embeddings of all tokens [N, width]."""
        words = self._words().detach()
        return words[0] if words.dim() == 3 else words

    def scores(self, parameters: Mapping[str, Tensor] | None = None, noise: Tensor | None = None) -> dict[str, Tensor]:
        """Return the scores [n, k] of each task in one pass, with other parameters or noise on the word embeddings."""
        packed, given = self.batch.packed, {**(self.replaced or {}), **(parameters or {})}
        if noise is not None:
            packed, given = self._reading(self._words() + noise, given)
        blocks = self.network.embed(packed, given or None).split_with_sizes(packed.sections)
        return {task: self.network.scores(task, block.tensor_split(self._read(task)))
                for task, block in zip(self.batch.labels, blocks, strict=True)}

    def losses(self, scores: Mapping[str, Tensor]) -> list[Tensor]:
        """Return the mean weighted loss of each task."""
        heads, tasks = self.network.model.heads, self.network.tasks
        return [self._mean(task, heads[task].loss.each(scores[task], labels, tasks[task]))
                for task, labels in self.batch.labels.items()]

    def apart(self, one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[Tensor]:
        """Return how far the scores of two passes are apart, for each task."""
        tasks = self.network.tasks
        return [self._mean(task, divergence(one[task], other[task], tasks[task])) for task in self.batch.labels]

    def missed(self, p: float) -> list[Tensor]:
        """Return, for each task, the mean of -log probability of the words that are chosen and are to be guessed."""
        packed, words, encoder = self.batch.packed, self.network.words, self.network.encoder
        places, whole = masked_lm.chosen(packed, p), encoder.get_parameter(self.network.words_name).detach()
        tokens, table = packed.tokens[places], words.rows.detach() if words else whole
        wanted = words.numbers(tokens, self.network.words_name in (self.replaced or {})) if words else tokens
        shown = masked_lm.changed(self._words(), places, whole[cast(int, encoder.mask)], table)
        reading, given = self._reading(shown, self.replaced or {})
        with self.network.precision():
            states = masked_lm.states(encoder, given, reading)[places.to(table.device)]
            guesses = self.network.regularizer(states) @ table.T
        means = masked_lm.means(packed, places, guesses.float(), wanted.to(table.device))
        return [block.view(self._read(task), -1).mean(0).sum() / self.batch.examples[task]
                for task, block in zip(self.batch.labels, means.split_with_sizes(packed.sections), strict=True)]

    def still(self) -> NetworkStep:
        """Return the step with constants in place of the encoder's parameters."""
        table = self.parameters[self.network.words_name]
        constants = {name: p.detach() for name, p in self.network.encoder.named_parameters()}
        constants[self.network.words_name] = table.detach()[0] if table.dim() == 3 else table.detach()
        return replace(self, replaced=constants)

    def _words(self) -> Tensor:
        """Return the word embeddings [N, width] or, of a bank, [T, N, width]."""
        table = self.parameters[self.network.words_name]
        return table.index_select(-2, self.batch.packed.tokens.to(table.device))

    def _reading(self, words: Tensor, given: Mapping[str, Tensor]) -> tuple[Packed, dict[str, Tensor]]:
        """Return what an encoder reads, and its parameters, where `words` are the word embeddings of the tokens.

        Every token has a row of the word table to itself.
        """
        packed = self.batch.packed
        return replace(packed, tokens=torch.arange(len(packed.tokens))), {**given, self.network.words_name: words}

    def _read(self, task: str) -> int:
        """Return how many sentences are read of an example; two that are read as one are one."""
        return 1 if self.network.model.heads[task].joint else self.network.tasks[task].sentences

    def _mean(self, task: str, each: Tensor) -> Tensor:
        """Return the share of a task's weighted mean that these examples [n] have."""
        return self.network.model.heads[task].weight * each.sum() / self.batch.examples[task]


def divergence(one: Tensor, other: Tensor, task: Task) -> Tensor:
    """Return the mean [n] of KL(p, q) and KL(q, p) of what scores [n, k] stand for; of a regression (s - t)^2."""
    if task.kind == "regression":
        return (one[:, 0] - other[:, 0]) ** 2
    if task.kind == "binary":  # the logit of yes; that of no is 0
        one, other = (functional.pad(scores, (1, 0)) for scores in (one, other))
    p, q = one.log_softmax(1), other.log_softmax(1)
    return ((p.exp() - q.exp()) * (p - q)).sum(1) / 2


def not_finite(tensors: Mapping[str, Tensor]) -> str:
    """Return the name of the first tensor with a number that is not finite, or an empty string.

    One norm of all is looked at first, which costs less than 1 % of a step; numbers beyond 1e19 let it overflow, too.
    """
    if torch.nn.utils.get_total_norm(list(tensors.values())).isfinite():
        return ""
    return next((name for name, tensor in tensors.items() if not tensor.isfinite().all()), "")
