"""BERT's tokenizer, a vocabulary of our own, and the token ids of a suite's sentences, made once per content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save
from tokenizers import Tokenizer

from ..files import write_bytes
from ..parts.encoders import Packed
from ..tasks.data import Examples

Reading = str | tuple[str, str]
"""What an encoder reads at once: a sentence, or two as one."""

CHUNK = 4096
"""Sentences that are tokenized at a time, so that memory does not grow with the data."""


@dataclass(frozen=True)
class Tokens:
    """The token ids of U different sentences, or pairs of them read as one, end to end."""

    ids: np.ndarray
    """int32 [sum of lengths]."""
    starts: np.ndarray
    """int64 [U]: where each sentence begins in `ids`."""
    lengths: np.ndarray
    """int64 [U]."""
    firsts: np.ndarray
    """int64 [U]: how many of the tokens are of the first sentence; all of those of a sentence alone."""
    numbers: Mapping[Reading, int]
    """The row of each sentence or pair."""
    joint: Mapping[str, int] = field(default_factory=dict)
    """The tasks whose two sentences are read as one, and in how many orders, 1 or 2."""

    @classmethod
    def of(cls, splits: Mapping[str, Mapping[str, Examples]], tokenizer: Tokenizer, cache: Path | None = None,
           joint: Mapping[str, int] | None = None) -> Tokens:
        """Return the tokens of all sentences of a suite, from the folder `cache` where they were made before.

        Behind them are the pairs of the tasks that are `joint`, joined anew each time.
        """
        parts = [part for by_split in splits.values() for part in by_split.values()]
        sentences = list(dict.fromkeys(text for part in parts for text in (*part.first, *part.second)))
        ids, lengths = _remembered(sentences, tokenizer, cache) if cache else _encode(sentences, tokenizer)
        numbers: dict[Reading, int] = {text: row for row, text in enumerate(sentences)}
        alone = cls(ids, np.cumsum(lengths) - lengths, lengths, lengths, numbers, joint or {})
        paired = [column for task in sorted(alone.joint) for part in splits.get(task, {}).values()
                  for column in alone._pairs(task, part)]
        pairs = list(dict.fromkeys(pair for column in paired for pair in column))
        return alone._with(pairs, (tokenizer.truncation or {}).get("max_length")) if pairs else alone

    def _with(self, pairs: Sequence[tuple[str, str]], most: int | None) -> Tokens:
        """Return these tokens and behind them those of pairs, [CLS] a [SEP] b [SEP], at most so many of each.

        Of a pair that is too long the longer sentence is cut; where both have more than half of the room, both are.
        """
        a, b = (self.rows([pair[side] for pair in pairs]) for side in (0, 1))
        kept, more = self.lengths[a] - 2, self.lengths[b] - 2  # words, without [CLS] and [SEP]
        if most is not None:
            room = most - 3
            kept = np.minimum(kept, np.maximum(room - more, (room + 1) // 2))
            more = np.minimum(more, room - kept)
        one = np.ones_like(kept)
        ends = self.starts + self.lengths - 1
        starts = np.stack([self.starts[a], ends[a], self.starts[b] + 1, ends[b]], axis=1)
        counts = np.stack([kept + 1, one, more, one], axis=1)  # tokens of [CLS] a, [SEP], b, [SEP]
        lengths = np.concatenate([self.lengths, counts.sum(1)])
        ids = self.ids[_places(starts.reshape(-1), counts.reshape(-1))]
        numbers = dict(self.numbers)
        numbers.update((pair, row) for row, pair in enumerate(pairs, len(self.lengths)))
        return replace(self, ids=np.concatenate([self.ids, ids]), starts=np.cumsum(lengths) - lengths, lengths=lengths,
                       firsts=np.concatenate([self.firsts, kept + 2]), numbers=numbers)

    def rows(self, readings: Sequence[Reading]) -> np.ndarray:
        """Return the rows of sentences, or pairs, that belong to the suite, int64 [n]."""
        return np.fromiter((self.numbers[reading] for reading in readings), np.int64, len(readings))

    def of_task(self, task: str, examples: Examples) -> np.ndarray:
        """Return the rows of what is read of each example, int64 [1 or 2, n]: its sentences, or both as one in each
        order."""
        if task in self.joint:
            return np.stack([self.rows(column) for column in self._pairs(task, examples)])
        return np.stack([self.rows(column) for column in (examples.first, examples.second) if column])

    def _pairs(self, task: str, examples: Examples) -> list[list[tuple[str, str]]]:
        """Return the pairs of a task that are read as one, in each order."""
        sides = (examples.first, examples.second)
        return [list(zip(*order, strict=True)) for order in (sides, sides[::-1])[:self.joint[task]]]

    def pack(self, rows: np.ndarray, sections: tuple[int, ...]) -> Packed:
        """Return the sentences in these rows [S] end to end; `sections` says how many belong to each task."""
        lengths, firsts = self.lengths[rows], self.firsts[rows]
        ids = self.ids[_places(self.starts[rows], lengths)]
        return Packed(torch.from_numpy(ids.astype(np.int64)), torch.from_numpy(lengths), sections,
                      torch.from_numpy(firsts) if (firsts < lengths).any() else None)


def _places(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the places of all that stands in pieces of so many numbers from such starts, one piece after another."""
    ends = np.cumsum(lengths)
    places: np.ndarray = np.arange(ends[-1]) + np.repeat(starts - ends + lengths, lengths)
    return places


def _remembered(sentences: Sequence[str], tokenizer: Tokenizer, cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return what `_encode` returns, made once for the same sentences and tokenizer."""
    content = json.dumps([tokenizer.to_str(), sentences])
    file = cache / f"tokens-{hashlib.sha256(content.encode()).hexdigest()[:32]}.safetensors"
    made = _read(file, len(sentences))
    if made is None:
        made = _encode(sentences, tokenizer)
        write_bytes(file, save({"ids": made[0], "lengths": made[1], "digest": _digest(*made)}))
    return made


def _encode(sentences: Sequence[str], tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """Return all token ids end to end, int32, and the length of each sentence, int64."""
    ids, lengths = [np.empty(0, np.int32)], []
    for start in range(0, len(sentences), CHUNK):
        encoded = [encoding.ids for encoding in tokenizer.encode_batch_fast(sentences[start:start + CHUNK])]
        lengths += [len(one) for one in encoded]
        ids.append(np.concatenate([np.array(one, np.int32) for one in encoded]))
    return np.concatenate(ids), np.array(lengths, np.int64)


def _digest(ids: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the sha256 of token ids and lengths as uint8 [32]: safetensors itself would not notice a flipped bit."""
    return np.frombuffer(hashlib.sha256(ids.tobytes() + lengths.tobytes()).digest(), np.uint8)


def _read(file: Path, sentences: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Return what a cache file holds, or None where it is missing or damaged."""
    try:
        held = load(file.read_bytes())
        ids, lengths, digest = held["ids"], held["lengths"], held["digest"]
    except (OSError, SafetensorError, KeyError):
        return None
    return (ids, lengths) if len(lengths) == sentences and np.array_equal(digest, _digest(ids, lengths)) else None
