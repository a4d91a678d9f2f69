"""Summaries of examples, against pandas and against the tokens that training uses."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.parts.encoders.bert.tokenizer import bert, vocabulary
from runner.tasks.data import Data, Examples, Task
from runner.tasks.summaries import Ruler, label_text, spread, summarize
from runner.training.tokens import Tokens

MOODS = Task(title="Moods", kind="classification", classes=3, labels=("sad", "calm", "glad"))
SCALE = Task(title="Scale", kind="regression", high=5.0, sentences=2)
TOPICS = Task(title="Topics", kind="multilabel", classes=3, labels=("a", "b", "c"))
WORDS = st.text("ab ", min_size=1, max_size=4)


def examples(rows: list[tuple[str, float]], start: int = 0) -> Examples:
    return Examples(tuple(f"i{n + start}" for n in range(len(rows))), tuple(text for text, _ in rows),
                    labels=np.array([label for _, label in rows]))


@given(st.lists(st.tuples(WORDS, st.sampled_from([0.0, 1.0, 2.0])), min_size=1, max_size=30),
       st.lists(st.tuples(WORDS, st.sampled_from([0.0, 1.0, 2.0])), min_size=1, max_size=30))
def test_counts_are_those_of_pandas(train: list[tuple[str, float]], dev: list[tuple[str, float]]) -> None:
    splits = {"train": examples(train), "dev": examples(dev, 100)}
    summary = summarize(Data({"moods": MOODS}, {"moods": splits}), {}, Ruler.words())["moods"]
    frames = {split: pd.DataFrame({"text": part.first, "label": part.labels}) for split, part in splits.items()}
    for split, frame in frames.items():
        found, lengths = summary.splits[split], frame.text.str.split().str.len()
        counts = frame.label.value_counts()
        assert found.classes == {name: counts.get(float(k), 0) for k, name in enumerate(MOODS.labels)}
        assert found.missing == [name for k, name in enumerate(MOODS.labels) if float(k) not in counts]
        assert found.repeated == frame.text.duplicated().sum()
        assert [found.lengths.median, found.lengths.percentile_95] == pytest.approx(lengths.quantile([0.5, 0.95]))
        assert found.lengths.longest == lengths.max() and found.lengths.cut == 0
    labels = pd.concat(frames.values()).groupby("text").label.nunique()
    assert summary.contradictions == (labels > 1).sum()
    assert (summary.contradiction is None) == (not summary.contradictions)
    shared = frames["dev"].text.isin(frames["train"].text).sum()
    assert [overlap.shared for overlap in summary.overlaps] == [shared] * bool(shared)


def test_each_finding_comes_with_an_example() -> None:
    train = Examples(("1", "2", "3"), ("x", "y", "x"), labels=np.array([0.0, 1.0, 2.0]))
    dev = Examples(("4", "5"), ("y", "z"), labels=np.array([1.0, 1.0]))
    data = Data({"moods": MOODS}, {"moods": {"train": train, "dev": dev}}, {"a.csv": 2, "b.csv": 1, "c.csv": 9})
    summary = summarize(data, {"moods": {"train": ["a.csv", "b.csv"], "dev": []}}, Ruler.words())["moods"]
    assert summary.splits["train"].repeated_ids == ("3", "1") and summary.splits["train"].dropped == 3
    assert summary.splits["dev"].missing == ["sad", "glad"] and summary.splits["dev"].files == ()
    assert summary.contradiction and summary.contradiction.one == ("train", "1", "sad")
    assert summary.contradiction.other == ("train", "3", "glad") and summary.contradictions == 1
    (overlap,) = summary.overlaps
    assert (overlap.earlier, overlap.split, overlap.example) == ("train", "dev", "4")


def test_a_regression_has_quartiles_and_hidden_labels_have_none() -> None:
    values = [0.5, 4.0, 2.5, 1.0, 5.0, 3.0]
    ids = tuple(map(str, range(6)))
    labelled = Examples(ids, ids, tuple(f"{n} {n}" for n in ids), np.array(values))
    splits = {"train": labelled, "test": Examples(ids, ids, ids)}
    train, test = summarize(Data({"s": SCALE}, {"s": splits}), {}, Ruler.words())["s"].splits.values()
    described = pd.Series(values).describe()
    assert train.scale and list(vars(train.scale).values()) == pytest.approx(
        [described[key] for key in ("min", "25%", "50%", "75%", "max")])
    assert train.classes is test.classes is test.scale is None and test.missing == []
    assert (train.lengths.median, train.lengths.longest) == (1.5, 2), "both sentences count"


def test_labels_of_a_multi_label_task_are_counted_one_by_one() -> None:
    labels = np.array([[1.0, 0, 0], [1, 1, 0], [0, 0, 0]])
    part = Examples(("1", "2", "3"), ("x", "y", "x"), labels=labels)
    summary = summarize(Data({"t": TOPICS}, {"t": {"train": part}}), {}, Ruler.words())["t"]
    assert summary.splits["train"].classes == {"a": 2, "b": 1, "c": 0} and summary.splits["train"].missing == ["c"]
    assert summary.contradiction and [end[2] for end in vars(summary.contradiction).values()] == ["a", "none"]
    assert label_text(TOPICS, [1.0, 1.0, 0.0]) == "a, b"


def test_lengths_in_tokens_are_those_of_training_and_cuts_are_found() -> None:
    texts = ["one two", "one " * 7, "two", "one two three " * 4]
    first, second = tuple(texts), tuple(reversed(texts))
    splits = {"s": {"train": Examples(("a", "b", "c", "d"), first, second, np.zeros(4))}}
    pieces = vocabulary(texts, 200)

    def trained(limit: int, joint: dict[str, int]) -> list[int]:
        tokens = Tokens.of(splits, bert(pieces, limit), joint=joint)
        return tokens.lengths[tokens.of_task("s", splits["s"]["train"])].reshape(-1).tolist()

    for joint in ({}, {"s": 1}):
        summary = summarize(Data({"s": SCALE}, splits), {}, Ruler.tokens(bert(pieces, 8)), list(joint))["s"]
        lengths, whole = summary.splits["train"].lengths, trained(500, joint)
        assert (lengths.longest, lengths.median, summary.limit) == (max(whole), np.median(whole), 8)
        assert lengths.cut == sum(a != b for a, b in zip(whole, trained(8, joint), strict=True)) > 0
        assert lengths.cut_id == "a" and lengths.longest_id in "ad"


@given(st.integers(1, 50), st.integers(0, 60))
def test_examples_are_spread_over_a_split(size: int, count: int) -> None:
    positions = spread(examples([("x", 0.0)] * size), count)
    assert len(positions) == min(size, count) == len({*positions}) and all(0 <= at < size for at in positions)
    gaps = [b - a for a, b in pairwise([*positions, size])]
    assert max(gaps, default=0) - min(gaps, default=0) <= 1
