"""BERT's tokenizer, a vocabulary of our own, and the token ids of a suite's sentences, made once per content."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

from .encoders import Packed
from .files import write_bytes
from .suites import Examples

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""Pieces that are not text; a vocabulary of our own begins with them."""
CHUNK = 4096
"""Sentences that are tokenized at a time, so that memory does not grow with the data."""


def bert(vocabulary: Sequence[str], max_length: int, lowercase: bool = True, strip_accents: bool | None = None,
         handle_chinese_chars: bool = True) -> Tokenizer:
    """Return BERT's WordPiece tokenizer: [CLS] and [SEP] added, cut to `max_length` ids, no padding."""
    ids = {piece: number for number, piece in enumerate(vocabulary)}
    tokenizer = Tokenizer(WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = BertNormalizer(True, handle_chinese_chars, strip_accents, lowercase)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    ends = [(piece, ids[piece]) for piece in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.enable_truncation(max_length)
    return tokenizer


def vocabulary(sentences: Iterable[str], size: int) -> list[str]:
    """Return at most `size` word pieces: special ones, characters alone and within a word (`##`), whole words.

    Characters take at most half of the room; they and the words come by falling frequency, ties by code point. A
    word of known characters is never unknown: it falls apart into them.
    """
    spell, split = BertNormalizer(lowercase=True), BertPreTokenizer()
    spaced: Counter[str] = Counter()
    for sentence in sentences:
        spaced.update(spell.normalize_str(sentence).split())
    words: Counter[str] = Counter()
    for text, count in spaced.items():
        for word, _ in split.pre_tokenize_str(text):
            words[word] += count
    characters: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            characters[character] += count
    alphabet = sorted(_ranked(characters)[: (size - len(SPECIAL)) // 4])
    pieces = [*SPECIAL, *alphabet, *(f"##{character}" for character in alphabet)]
    return list(dict.fromkeys([*pieces, *_ranked(words)]))[:size]


def _ranked(counts: Mapping[str, int]) -> list[str]:
    """Return texts by falling count, ties by code point."""
    return sorted(counts, key=lambda text: (-counts[text], text))


@dataclass(frozen=True)
class Tokens:
    """The token ids of U different sentences, end to end."""

    ids: np.ndarray
    """int32 [sum of lengths]."""
    starts: np.ndarray
    """int64 [U]: where each sentence begins in `ids`."""
    lengths: np.ndarray
    """int64 [U]."""
    numbers: Mapping[str, int]
    """The row of each sentence."""

    @classmethod
    def of(cls, splits: Mapping[str, Mapping[str, Examples]], tokenizer: Tokenizer, cache: Path | None = None
           ) -> Tokens:
        """Return the tokens of all sentences of a suite, from the folder `cache` where they were made before."""
        parts = [part for by_split in splits.values() for part in by_split.values()]
        sentences = list(dict.fromkeys(text for part in parts for text in (*part.first, *part.second)))
        ids, lengths = _remembered(sentences, tokenizer, cache) if cache else _encode(sentences, tokenizer)
        return cls(ids, np.cumsum(lengths) - lengths, lengths, {text: row for row, text in enumerate(sentences)})

    def rows(self, sentences: Sequence[str]) -> np.ndarray:
        """Return the rows of sentences that belong to the suite, int64 [n]."""
        return np.fromiter((self.numbers[text] for text in sentences), np.int64, len(sentences))

    def pack(self, rows: np.ndarray, sections: tuple[int, ...]) -> Packed:
        """Return the sentences in these rows [S] end to end; `sections` says how many belong to each task."""
        lengths = self.lengths[rows]
        ends = np.cumsum(lengths)
        places = np.arange(ends[-1]) + np.repeat(self.starts[rows] - ends + lengths, lengths)
        return Packed(torch.from_numpy(self.ids[places].astype(np.int64)), torch.from_numpy(lengths), sections)


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
