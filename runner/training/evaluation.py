"""Inference: predictions of a network on splits of a suite."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import cast

import numpy as np
import torch

from ..tasks.data import Data
from ..tasks.predictions import Output, Predictions
from . import memory
from .batches import TokenizedExamples
from .network import Network
from .tokens import Tokens

TOKENS = 4096
"""Token budget of one evaluation batch."""


class Evaluation:
    """Computes scores of tasks on splits; each distinct sentence is encoded once."""

    def __init__(self, data: Data, tokens: Tokens, tasks: Sequence[str], splits: Sequence[str]) -> None:
        self.data, self.tokens = data, tokens
        self.splits = {
            (split, task): TokenizedExamples(task, data.splits[task][split], tokens)
            for split in splits for task in tasks if split in data.splits[task]
        }
        self.rows = _distinct(self.splits.values())
        self.seconds = 0.0
        """Duration of the last evaluation."""

    @torch.no_grad()
    def __call__(self, network: Network, tick: Callable[[], None] = lambda: None) -> Predictions:
        """Return the network's Predictions; its train or eval mode is restored.

        `tick` is called before every batch and may raise to stop.
        """
        if not self.splits:
            return Predictions({})
        training, started = network.training, time.monotonic()
        network.eval()
        outputs: dict[str, dict[str, Output]] = {name: {} for name, _ in self.splits}
        for tasks in network.encoded_alike(list(dict.fromkeys(task for _, task in self.splits))):
            splits = {key: split for key, split in self.splits.items() if key[1] in tasks}
            rows = self.rows if len(splits) == len(self.splits) else _distinct(splits.values())
            embeddings = self._embed(network, tasks[0], rows, tick)  # [distinct sentences, width]
            for (name, task), split in splits.items():
                sentences = tuple(embeddings[np.searchsorted(rows, column)] for column in split.rows)
                scores = network.scores(task, sentences).float().cpu().numpy()
                outputs[name][task] = Output(self.data.splits[task][name].ids, scores)
        network.train(training)
        self.seconds = time.monotonic() - started
        return Predictions(outputs)

    def _embed(self, network: Network, task: str, rows: np.ndarray, tick: Callable[[], None]) -> torch.Tensor:
        """Compute a task's embeddings of sentences [S, width] in batches of similar length, divided among the ranks."""
        device = next(network.parameters()).device
        lengths = self.tokens.lengths[rows]
        by_length = np.argsort(lengths, kind="stable")
        ends = np.cumsum(lengths[by_length])
        blocks = np.split(by_length, np.flatnonzero(np.diff(ends // TOKENS)) + 1)
        out = torch.zeros(len(rows), cast(int, network.encoder.width), device=device)
        for number, block in enumerate(blocks):
            if number % network.ranks.count == 0:
                tick()
            if number % network.ranks.count == network.ranks.number:
                out[torch.from_numpy(block).to(device)] = self._embed_batch(network, task, rows[block])
        network.ranks.add(out)  # a rank has zeros for the batches of the others
        return out

    def _embed_batch(self, network: Network, task: str, rows: np.ndarray) -> torch.Tensor:
        """Return a task's embeddings of sentences; on out-of-memory, halve the batch and retry."""
        try:
            return network.embed(self.tokens.pack(rows, (len(rows),)), (task,))
        except (RuntimeError, MemoryError) as error:
            if len(rows) == 1 or not memory.is_exhausted(error):
                raise
        memory.release(next(network.parameters()).device)
        half = len(rows) // 2
        return torch.cat([self._embed_batch(network, task, part) for part in (rows[:half], rows[half:])])


def _distinct(splits: Iterable[TokenizedExamples]) -> np.ndarray:
    """Return the distinct sentences of splits as ascending rows of the token table."""
    return np.unique(np.concatenate([np.empty(0, np.int64), *(split.rows.reshape(-1) for split in splits)]))
