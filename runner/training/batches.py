"""Packed multi-task batches of token ids; their order is a pure function of seed and step."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch

from ..parts.encoders import Packed
from ..specs.spec import Model, Train
from ..tasks.data import Data, Examples
from .tokens import Tokens


def seeded(seed: int, *words: object) -> int:
    """Derive a 63-bit seed from a base seed and a purpose (`words`), so that no two purposes share random numbers."""
    digest = hashlib.sha256(repr((seed, words)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


@lru_cache(maxsize=64)
def order(seed: int, task: str, epoch: int, pass_: int, examples: int) -> np.ndarray:
    """Return the permutation of a task's examples in one pass of one epoch, int64 [examples]."""
    return np.random.default_rng(seeded(seed, "order", task, epoch, pass_)).permutation(examples)


@dataclass(frozen=True)
class Batch:
    """The batch of one step, or a micro-batch of it: packed sentences of all tasks and the labels of each task."""

    packed: Packed
    labels: Mapping[str, torch.Tensor]
    """float32 [n] of each task, in the order of the packed sections; [n, k] of a multi-label task."""
    weights: Mapping[str, torch.Tensor]
    """float32 [n], the factors of the examples' losses, of each task that has some."""
    examples: Mapping[str, int]
    """Number of examples of each task in the whole step, by which losses are divided."""

    @property
    def longest(self) -> int:
        """Tokens of the longest sentence."""
        return int(self.packed.lengths.max())

    @property
    def most(self) -> int:
        """Examples of the task that has most."""
        return max(map(len, self.labels.values()))

    def to(self, device: torch.device) -> Batch:
        """Return the batch with its labels and weights on a device; the encoder moves the sentences."""
        return replace(self, labels={task: labels.to(device) for task, labels in self.labels.items()},
                       weights={task: weights.to(device) for task, weights in self.weights.items()})

    def split(self, parts: int, first: int = 0, every: int = 1) -> Iterator[Batch]:
        """Split the batch into micro-batches of about equal size per task, whose losses sum to that of the batch.

        There are at most `most` of them. Yields only the micro-batches `first`, `first + every`, ...
        """
        parts = min(parts, self.most)
        if parts == 1:
            yield self
            return
        sentences = self.packed.tokens.split_with_sizes(self.packed.lengths.tolist())
        sections = np.split(np.arange(len(sentences)), np.cumsum(self.packed.sections)[:-1])
        pieces = [np.array_split(section.reshape(-1, len(labels)), parts, axis=1)  # each [1 or 2 per example, n]
                  for section, labels in zip(sections, self.labels.values(), strict=True)]
        for number in range(first, parts, every):
            rows = [section[number].reshape(-1) for section in pieces]
            selected = np.concatenate(rows)
            tokens = torch.cat([sentences[i] for i in selected])
            firsts = None if self.packed.firsts is None else self.packed.firsts[selected]
            packed = Packed(tokens, self.packed.lengths[selected], tuple(map(len, rows)), firsts)
            labels = {task: of_task.tensor_split(parts)[number] for task, of_task in self.labels.items()}
            weights = {task: of_task.tensor_split(parts)[number] for task, of_task in self.weights.items()}
            yield Batch(packed, labels, weights, self.examples)


def with_weights(data: Data, model: Model) -> Data:
    """Return data whose training examples are weighted by their own weights and by the losses' class weights."""
    splits = dict(data.splits)
    for task in model.trained:
        train = data.splits[task]["train"]
        assert train.labels is not None
        by_class = model.heads[task].loss.weights(train.labels, data.tasks[task])
        known = [weights for weights in (train.weights, by_class) if weights is not None]
        if known:
            splits[task] = {**splits[task], "train": replace(train, weights=np.prod(known, axis=0))}
    return replace(data, splits=splits)


class TokenizedExamples:
    """Examples of one task and split: row numbers in the token table, labels, and weights if they have some."""

    def __init__(self, task: str, examples: Examples, tokens: Tokens) -> None:
        self.rows = tokens.of_task(task, examples)  # [1 or 2 per example, n]
        self.labels = torch.tensor(examples.labels if examples.labels is not None else [], dtype=torch.float32)
        self.weights = None if examples.weights is None else torch.tensor(examples.weights, dtype=torch.float32)

    def __len__(self) -> int:
        return int(self.rows.shape[1])


class Batches:
    """Batches of a run: each step has one batch of every trained task; tasks are reshuffled every epoch.

    Stateless: `batch(step)` depends on nothing but its argument, so that a resumed run sees the same batches.
    """

    def __init__(self, data: Data, tokens: Tokens, tasks: tuple[str, ...], train: Train) -> None:
        self.tokens, self.train = tokens, train
        self.splits = {task: TokenizedExamples(task, data.splits[task]["train"], tokens) for task in tasks}
        passes = [-(-len(split) // train.batch_size) for split in self.splits.values()]
        self.steps_per_epoch: int = train.steps or (min if train.epoch == "shortest" else max)(passes)

    def __len__(self) -> int:
        return self.steps_per_epoch * self.train.epochs

    def batch(self, step: int) -> Batch:
        """Return the batch of step `step` (from 0)."""
        indices = {task: self._indices(task, len(split), step) for task, split in self.splits.items()}
        rows = [self._rows(task, index, step).reshape(-1) for task, index in indices.items()]
        packed = self.tokens.pack(np.concatenate(rows), tuple(len(r) for r in rows))
        labels = {task: self.splits[task].labels[index] for task, index in indices.items()}
        weights = {task: of_task[index] for task, index in indices.items()
                   if (of_task := self.splits[task].weights) is not None}
        return Batch(packed, labels, weights, {task: len(index) for task, index in indices.items()})

    def used(self) -> np.ndarray:
        """Return the distinct token ids of the training sentences, int64, ascending."""
        rows = np.unique(np.concatenate([split.rows.reshape(-1) for split in self.splits.values()]))
        return np.unique(self.tokens.pack(rows, (len(rows),)).tokens.numpy())

    def _rows(self, task: str, index: np.ndarray, step: int) -> np.ndarray:
        """Return the token-table rows [1 or 2, n] of examples; of a joint pair with two orders, one is drawn."""
        rows, orders = self.splits[task].rows, self.tokens.joint.get(task, 1)
        if orders == 1:
            return rows[:, index]
        drawn = np.random.default_rng(seeded(self.train.seed, "sides", task, step)).integers(orders, size=len(index))
        return rows[None, drawn, index]

    def _indices(self, task: str, examples: int, step: int) -> np.ndarray:
        """Return the indices of one task's examples in one step; an exhausted task starts over, reshuffled."""
        epoch, within = divmod(step, self.steps_per_epoch)
        pass_, position = divmod(within, -(-examples // self.train.batch_size))
        start = position * self.train.batch_size
        return order(self.train.seed, task, epoch, pass_, examples)[start:start + self.train.batch_size]
