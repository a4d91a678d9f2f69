"""Token ids of a suite's sentences, cached on disk by content."""

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
"""One encoder input: a sentence, or a joint pair."""

CHUNK = 4096
"""Sentences tokenized per call, which bounds memory."""


@dataclass(frozen=True)
class Tokens:
    """Token ids of U distinct sentences or joint pairs, concatenated."""

    ids: np.ndarray
    """int32 [sum of lengths]: token ids, [CLS] and [SEP] included."""
    starts: np.ndarray
    """int64 [U]: offset of each sentence in `ids`."""
    lengths: np.ndarray
    """int64 [U]: number of tokens of each sentence."""
    firsts: np.ndarray
    """int64 [U]: number of tokens of the first segment; for a single sentence, of all tokens."""
    numbers: Mapping[Reading, int]
    """Row of each sentence or pair in this table."""
    joint: Mapping[str, int] = field(default_factory=dict)
    """Tasks whose pairs are encoded jointly -> number of orders, 1 or 2."""

    @classmethod
    def of(cls, splits: Mapping[str, Mapping[str, Examples]], tokenizer: Tokenizer, cache: Path | None = None,
           joint: Mapping[str, int] | None = None) -> Tokens:
        """Tokenize all sentences of a suite, or load their tokens from the folder `cache`.

        The pairs of the `joint` tasks are appended; they are not cached.
        """
        parts = [part for by_split in splits.values() for part in by_split.values()]
        sentences = list(dict.fromkeys(text for part in parts for text in (*part.first, *part.second)))
        ids, lengths = _cached(sentences, tokenizer, cache) if cache else _encode(sentences, tokenizer)
        numbers: dict[Reading, int] = {text: row for row, text in enumerate(sentences)}
        single = cls(ids, np.cumsum(lengths) - lengths, lengths, lengths, numbers, joint or {})
        paired = [column for task in sorted(single.joint) for part in splits.get(task, {}).values()
                  for column in single._pairs(task, part)]
        pairs = list(dict.fromkeys(pair for column in paired for pair in column))
        if not pairs:
            return single
        special = [tokenizer.num_special_tokens_to_add(is_pair) for is_pair in (False, True)]
        if special[0] == 2 and special[1] > 2:
            return single._with(pairs, (tokenizer.truncation or {}).get("max_length"), special[1] - 2)
        return single._encoded(pairs, tokenizer)

    def _encoded(self, pairs: Sequence[tuple[str, str]], tokenizer: Tokenizer) -> Tokens:
        """Return these tokens with pairs appended, as a tokenizer encodes them that is not like BERT's."""
        encodings = [encoding for start in range(0, len(pairs), CHUNK)
                     for encoding in tokenizer.encode_batch(pairs[start:start + CHUNK])]
        lengths = np.array([len(encoding.ids) for encoding in encodings])
        firsts = np.array([encoding.sequence_ids.index(1) if 1 in encoding.sequence_ids else len(encoding.ids)
                           for encoding in encodings])
        numbers = dict(self.numbers)
        numbers.update((pair, row) for row, pair in enumerate(pairs, len(self.lengths)))
        whole = np.concatenate([self.lengths, lengths])
        ids = np.concatenate([self.ids, *(np.array(encoding.ids, np.int32) for encoding in encodings)])
        return replace(self, ids=ids, starts=np.cumsum(whole) - whole, lengths=whole, numbers=numbers,
                       firsts=np.concatenate([self.firsts, firsts]))

    def _with(self, pairs: Sequence[tuple[str, str]], max_length: int | None, between: int) -> Tokens:
        """Return these tokens with pairs appended, [CLS] a [SEP] b [SEP], each truncated to `max_length` tokens.

        `between` is the number of [SEP] between a and b: 1 for BERT, 2 for RoBERTa. The longer sentence is truncated
        first; if both exceed half of the available length, both are truncated to it.
        """
        a, b = (self.rows([pair[side] for pair in pairs]) for side in (0, 1))
        tokens_a, tokens_b = self.lengths[a] - 2, self.lengths[b] - 2  # without [CLS] and [SEP]
        if max_length is not None:
            available = max_length - 2 - between
            tokens_a = np.minimum(tokens_a, np.maximum(available - tokens_b, (available + 1) // 2))
            tokens_b = np.minimum(tokens_b, available - tokens_a)
        ones = np.ones_like(tokens_a)
        ends = self.starts + self.lengths - 1
        starts = np.stack([self.starts[a], *[ends[a]] * between, self.starts[b] + 1, ends[b]], axis=1)
        counts = np.stack([tokens_a + 1, *[ones] * between, tokens_b, ones], axis=1)  # [CLS] a, [SEP], b, [SEP]
        lengths = np.concatenate([self.lengths, counts.sum(1)])
        ids = self.ids[_ranges(starts.reshape(-1), counts.reshape(-1))]
        numbers = dict(self.numbers)
        numbers.update((pair, row) for row, pair in enumerate(pairs, len(self.lengths)))
        return replace(self, ids=np.concatenate([self.ids, ids]), starts=np.cumsum(lengths) - lengths, lengths=lengths,
                       firsts=np.concatenate([self.firsts, tokens_a + 1 + between]), numbers=numbers)

    def rows(self, readings: Sequence[Reading]) -> np.ndarray:
        """Return the rows of sentences or pairs of the suite, int64 [n]."""
        return np.fromiter((self.numbers[reading] for reading in readings), np.int64, len(readings))

    def of_task(self, task: str, examples: Examples) -> np.ndarray:
        """Return the table rows of the encoder inputs of each example, int64 [1 or 2, n].

        The inputs are the sentences of the example, or its joint pair in each order.
        """
        if task in self.joint:
            return np.stack([self.rows(column) for column in self._pairs(task, examples)])
        return np.stack([self.rows(column) for column in (examples.first, examples.second) if column])

    def _pairs(self, task: str, examples: Examples) -> list[list[tuple[str, str]]]:
        """Return the joint pairs of a task, one list for each order."""
        sides = (examples.first, examples.second)
        return [list(zip(*order, strict=True)) for order in (sides, sides[::-1])[:self.joint[task]]]

    def pack(self, rows: np.ndarray, sections: tuple[int, ...]) -> Packed:
        """Pack the sentences of rows [S]; `sections` holds the number of sentences of each task."""
        lengths, firsts = self.lengths[rows], self.firsts[rows]
        ids = self.ids[_ranges(self.starts[rows], lengths)]
        return Packed(torch.from_numpy(ids.astype(np.int64)), torch.from_numpy(lengths), sections,
                      torch.from_numpy(firsts) if (firsts < lengths).any() else None)


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Concatenate the ranges start, ..., start + length - 1."""
    ends = np.cumsum(lengths)
    indices: np.ndarray = np.arange(ends[-1]) + np.repeat(starts - ends + lengths, lengths)
    return indices


def _cached(sentences: Sequence[str], tokenizer: Tokenizer, cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the result of `_encode`, through a cache file keyed by the hash of sentences and tokenizer."""
    content = json.dumps([tokenizer.to_str(), sentences])
    file = cache / f"tokens-{hashlib.sha256(content.encode()).hexdigest()[:32]}.safetensors"
    tokens = _read(file, len(sentences))
    if tokens is None:
        tokens = _encode(sentences, tokenizer)
        write_bytes(file, save({"ids": tokens[0], "lengths": tokens[1], "digest": _digest(*tokens)}))
    return tokens


def _encode(sentences: Sequence[str], tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """Tokenize sentences; return their token ids, concatenated (int32), and lengths [sentences] (int64)."""
    ids, lengths = [np.empty(0, np.int32)], []
    for start in range(0, len(sentences), CHUNK):
        encoded = [encoding.ids for encoding in tokenizer.encode_batch_fast(sentences[start:start + CHUNK])]
        lengths += [len(tokens) for tokens in encoded]
        ids.append(np.concatenate([np.array(tokens, np.int32) for tokens in encoded]))
    return np.concatenate(ids), np.array(lengths, np.int64)


def _digest(ids: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the sha256 of token ids and lengths as uint8 [32]; safetensors itself does not detect flipped bits."""
    return np.frombuffer(hashlib.sha256(ids.tobytes() + lengths.tobytes()).digest(), np.uint8)


def _read(file: Path, sentences: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Load token ids and lengths from a cache file; None if it is missing or damaged."""
    try:
        tensors = load(file.read_bytes())
        ids, lengths, digest = tensors["ids"], tensors["lengths"], tensors["digest"]
    except (OSError, SafetensorError, KeyError):
        return None
    return (ids, lengths) if len(lengths) == sentences and np.array_equal(digest, _digest(ids, lengths)) else None
