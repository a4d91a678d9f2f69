"""A network over a split -> Predictions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from .batches import Split
from .network import Network
from .predictions import Output, Predictions
from .suites import Data
from .tokens import Tokens

TOKENS = 4096
"""Most token ids in one evaluation batch."""


class Evaluation:
    """Scores of all tasks on some splits; every different sentence is encoded once."""

    def __init__(self, data: Data, tokens: Tokens, tasks: Sequence[str], splits: Sequence[str]) -> None:
        self.data, self.tokens = data, tokens
        self.splits = {
            (split, task): Split(data.splits[task][split], tokens)
            for split in splits for task in tasks if split in data.splits[task]
        }
        rows = [split.rows.reshape(-1) for split in self.splits.values()]
        self.rows = np.unique(np.concatenate(rows))  # all sentences needed, as rows of the token table

    @torch.no_grad()
    def __call__(self, network: Network) -> Predictions:
        """Return the network's Predictions; the network is left in the mode that it was in."""
        training = network.training
        network.eval()
        embeddings = self._embed(network)  # [unique sentences, width]
        outputs: dict[str, dict[str, Output]] = {}
        for (name, task), split in self.splits.items():
            sentences = tuple(embeddings[np.searchsorted(self.rows, column)] for column in split.rows)
            scores = network.scores(task, sentences).float().cpu().numpy()
            outputs.setdefault(name, {})[task] = Output(self.data.splits[task][name].ids, scores)
        network.train(training)
        return Predictions(outputs)

    def _embed(self, network: Network) -> torch.Tensor:
        """Return the embeddings of all sentences needed, made in batches of sentences of similar length."""
        device = next(network.parameters()).device
        lengths = self.tokens.lengths[self.rows]
        by_length = np.argsort(lengths, kind="stable")
        ends = np.cumsum(lengths[by_length])
        blocks = np.split(by_length, np.flatnonzero(np.diff(ends // TOKENS)) + 1)
        made = [network.embed(self.tokens.pack(self.rows[b], (len(b),))) for b in blocks]
        out = torch.empty(len(self.rows), made[0].shape[1], device=device)
        out[torch.from_numpy(by_length).to(device)] = torch.cat(made)
        return out
