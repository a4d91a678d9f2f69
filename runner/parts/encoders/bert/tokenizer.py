"""Tokenizers of BERT-like encoders, and building of a vocabulary from the training sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.models import BPE, WordPiece
from tokenizers.normalizers import BertNormalizer, Normalizer, Replace
from tokenizers.normalizers import Sequence as Normalizers
from tokenizers.pre_tokenizers import BertPreTokenizer, ByteLevel
from tokenizers.processors import RobertaProcessing, TemplateProcessing

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

SPELLINGS = {"pad": ("[PAD]", "<pad>"), "unk": ("[UNK]", "<unk>"), "cls": ("[CLS]", "<s>"), "sep": ("[SEP]", "</s>"),
             "mask": ("[MASK]", "<mask>")}
"""Purposes of special tokens -> their spellings in BERT and in RoBERTa."""

SPACES = {r" (?=[.,:;?!%)\]}])": "", r"(?<=[(\[{$]) ": ""}
"""Patterns of spaces beside punctuation in the Penn Treebank, for tokenizers that do not ignore them."""


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


def from_json(text: str, max_length: int, treebank: bool = False) -> Tokenizer:
    """Build the tokenizer of a tokenizer.json, which truncates to `max_length` ids and does not pad.

    Raise ValueError if it is not valid, or adds other special tokens than [CLS] a [SEP] and [CLS] a [SEP] b [SEP].
    """
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises Exception itself
        raise ValueError(f"not a tokenizer: {error}") from None
    return _finished(tokenizer, max_length, treebank)


def byte_level(pieces: dict[str, int], merges: Sequence[tuple[str, str]], max_length: int,
               treebank: bool = False) -> Tokenizer:
    """Build RoBERTa's byte-level BPE tokenizer (Radford et al. 2019) from vocab.json and merges.txt.

    Raise ValueError if the pieces lack a special token.
    """
    special = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    if missing := [piece for piece in special if piece not in pieces]:
        raise ValueError(f"the vocabulary lacks {', '.join(missing)}")
    tokenizer = Tokenizer(BPE(pieces, list(merges), unk_token="<unk>"))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = RobertaProcessing(("</s>", pieces["</s>"]), ("<s>", pieces["<s>"]),
                                                 add_prefix_space=False)
    tokenizer.add_special_tokens([*special[:-1], AddedToken("<mask>", lstrip=True)])
    return _finished(tokenizer, max_length, treebank)


def _finished(tokenizer: Tokenizer, max_length: int, treebank: bool) -> Tokenizer:
    """Set truncation and no padding; raise ValueError for another number of special tokens."""
    single, pair = (tokenizer.num_special_tokens_to_add(is_pair) for is_pair in (False, True))
    if single != 2 or pair not in (3, 4):
        raise ValueError(f"it adds {single} special tokens to a sentence and {pair} to a pair; BERT-like encoders add "
                         "2, and 3 or 4")
    if treebank:
        steps = [Replace(Regex(pattern), text) for pattern, text in (TREEBANK | SPACES).items()]
        own = [tokenizer.normalizer] if tokenizer.normalizer else []
        tokenizer.normalizer = Normalizers([*steps, *own])
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    return tokenizer


def special_token(tokenizer: Tokenizer, purpose: str) -> str:
    """Return the special token of a purpose (`pad`, `mask`, ...) in BERT's or RoBERTa's spelling; empty without one."""
    return next((piece for piece in SPELLINGS[purpose] if tokenizer.token_to_id(piece) is not None), "")


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
