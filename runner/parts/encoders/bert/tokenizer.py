"""BERT's tokenizer, and building of a vocabulary from the training sentences."""

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
"""Special tokens; a vocabulary built here begins with them."""

TREEBANK = {
    r"(?i)(?<=\w) (?=n't\b)|(?<=\bcan) (?=not\b)|(?<=\b(?:gon|wan)) (?=na\b)|(?<=\bgot) (?=ta\b)": "",
    r"(?i)(?<=\bgim) (?=me\b)|(?<=\blem) (?=me\b)|\\(?=[/*])": "",
    r"``|''": '"', r"(?i)-lrb-": "(", r"(?i)-rrb-": ")", r"(?i)-lsb-": "[", r"(?i)-rsb-": "]", r"(?i)-lcb-": "{",
    r"(?i)-rcb-": "}",
}
"""Patterns of Penn Treebank tokenization -> original text. Spaces beside punctuation are kept, since WordPiece ignores
them."""


def bert(vocabulary: Sequence[str], max_length: int, lowercase: bool = True, strip_accents: bool | None = None,
         handle_chinese_chars: bool = True, treebank: bool = False) -> Tokenizer:
    """Build BERT's WordPiece tokenizer: adds [CLS] and [SEP], truncates to `max_length` ids, does not pad.

    `treebank` undoes Penn Treebank tokenization of the input.
    """
    ids = {piece: number for number, piece in enumerate(vocabulary)}
    tokenizer = Tokenizer(WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = _normalizer(BertNormalizer(True, handle_chinese_chars, strip_accents, lowercase), treebank)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    ends = [(piece, ids[piece]) for piece in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
                                                  special_tokens=ends)
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.enable_truncation(max_length)
    return tokenizer


def _normalizer(bert: BertNormalizer, treebank: bool) -> Normalizer:
    """Return BERT's normalizer, preceded by undoing Penn Treebank tokenization if `treebank`."""
    replacements = [Replace(Regex(pattern), text) for pattern, text in TREEBANK.items()]
    return Normalizers([*replacements, bert]) if treebank else bert


def vocabulary(sentences: Iterable[str], size: int, treebank: bool = False) -> list[str]:
    """Build a vocabulary of at most `size` word pieces: special tokens, characters (also as `##`), whole words.

    Characters take at most half of `size`; characters and words are chosen by descending frequency, ties by code
    point. A word of known characters is never [UNK]: it is split into them.
    """
    normalizer, split = _normalizer(BertNormalizer(lowercase=True), treebank), BertPreTokenizer()
    spaced: Counter[str] = Counter()
    for sentence in sentences:
        spaced.update(normalizer.normalize_str(sentence).split())
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
    """Sort texts by descending count, ties by code point."""
    return sorted(counts, key=lambda text: (-counts[text], text))
