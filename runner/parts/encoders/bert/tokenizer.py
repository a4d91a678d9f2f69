"""BERT's tokenizer, and a vocabulary made of the training sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from tokenizers import Regex, Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer, Normalizer, Replace
from tokenizers.normalizers import Sequence as Normalizers
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""Pieces that are not text; a vocabulary of our own begins with them."""

TREEBANK = {
    r"(?i)(?<=\w) (?=n't\b)|(?<=\bcan) (?=not\b)|(?<=\b(?:gon|wan)) (?=na\b)|(?<=\bgot) (?=ta\b)": "",
    r"(?i)(?<=\bgim) (?=me\b)|(?<=\blem) (?=me\b)|\\(?=[/*])": "",
    r"``|''": '"', r"(?i)-lrb-": "(", r"(?i)-rrb-": ")", r"(?i)-lsb-": "[", r"(?i)-rsb-": "]", r"(?i)-lcb-": "{",
    r"(?i)-rcb-": "}",
}
"""What the Penn Treebank's tokenization made of running text, and what to put there instead. Spaces beside punctuation
stay, which WordPiece does not see."""


def bert(vocabulary: Sequence[str], max_length: int, lowercase: bool = True, strip_accents: bool | None = None,
         handle_chinese_chars: bool = True, treebank: bool = False) -> Tokenizer:
    """Return BERT's WordPiece tokenizer: [CLS] and [SEP] added, cut to `max_length` ids, no padding.

    With `treebank`, text that is tokenized as the Penn Treebank is read as the running text that it was made of.
    """
    ids = {piece: number for number, piece in enumerate(vocabulary)}
    tokenizer = Tokenizer(WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = _spelling(BertNormalizer(True, handle_chinese_chars, strip_accents, lowercase), treebank)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    ends = [(piece, ids[piece]) for piece in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
                                                  special_tokens=ends)
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.enable_truncation(max_length)
    return tokenizer


def _spelling(bert: BertNormalizer, treebank: bool) -> Normalizer:
    """Return what prepares a text: BERT's way, after the Penn Treebank's was undone where it is to be."""
    undone = [Replace(Regex(made), text) for made, text in TREEBANK.items()]
    return Normalizers([*undone, bert]) if treebank else bert


def vocabulary(sentences: Iterable[str], size: int, treebank: bool = False) -> list[str]:
    """Return at most `size` word pieces: special ones, characters alone and within a word (`##`), whole words.

    Characters take at most half of the room; they and the words come by falling frequency, ties by code point. A
    word of known characters is never unknown: it falls apart into them.
    """
    spell, split = _spelling(BertNormalizer(lowercase=True), treebank), BertPreTokenizer()
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
