"""What the examples of a task are like: how many, how long, which labels, what is repeated and what contradicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from ..lazy import deferred
from .data import Data, Examples, Overlap, Task

with deferred("numpy"):
    import numpy as np

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Reading = tuple[str, ...]
"""One input of an encoder: a sentence, or both sentences of a joint pair."""

CHUNK = 4096
"""Readings that are tokenized per call, which bounds memory."""


@dataclass(frozen=True)
class Ruler:
    """What lengths are measured in, and the length at which the encoder cuts, None for never."""

    unit: Literal["words", "tokens"]
    limit: int | None
    measure: Callable[[Sequence[Reading]], Sequence[int]]

    @classmethod
    def words(cls) -> Ruler:
        """Measure in words, which blanks separate."""
        return cls("words", None, lambda readings: [sum(len(text.split()) for text in texts) for texts in readings])

    @classmethod
    def tokens(cls, tokenizer: Tokenizer) -> Ruler:
        """Measure in tokens, with those that mark begin and end, before any is cut; the tokenizer then cuts no more."""
        limit = (tokenizer.truncation or {}).get("max_length")
        tokenizer.no_truncation()
        return cls("tokens", limit, partial(_counted, tokenizer))


def _counted(tokenizer: Tokenizer, readings: Sequence[Reading]) -> list[int]:
    """Return the number of tokens of each reading; equal ones are tokenized once."""
    distinct = list(dict.fromkeys(readings))
    counts: dict[Reading, int] = {}
    for start in range(0, len(distinct), CHUNK):
        chunk = distinct[start : start + CHUNK]
        encodings = tokenizer.encode_batch_fast([texts[0] if len(texts) == 1 else texts for texts in chunk])
        counts.update(zip(chunk, (len(encoding.ids) for encoding in encodings), strict=True))
    return [counts[texts] for texts in readings]


@dataclass(frozen=True)
class Lengths:
    """Lengths of the sentences of a split, or of its joint pairs."""

    median: float
    percentile_95: float
    longest: int
    longest_id: str
    cut: int
    """Number of those above the limit."""
    cut_id: str
    """Id of the example with the first of these; empty for none."""


@dataclass(frozen=True)
class Scale:
    """Distribution of the labels of a regression; quartiles are interpolated as numpy and pandas do."""

    min: float
    quartile_1: float
    median: float
    quartile_3: float
    max: float


@dataclass(frozen=True)
class SplitSummary:
    """The examples of one split of a task."""

    examples: int
    files: tuple[str, ...]
    """Files that were read; none for a share of the training examples, and for generated ones."""
    dropped: int
    """Rows of these files that were left out."""
    lengths: Lengths
    classes: Mapping[str, int] | None
    """Number of examples of each class, or with each label; None without labels and for a regression."""
    scale: Scale | None
    """The labels of a regression."""
    repeated: int
    """Number of examples with the sentences of an earlier one."""
    repeated_ids: tuple[str, ...]
    """Ids of the first of them and of the one that it repeats."""

    @property
    def missing(self) -> list[str]:
        """Names of the classes without any example."""
        return [name for name, count in (self.classes or {}).items() if not count]


@dataclass(frozen=True)
class Contradiction:
    """Two examples with equal sentences and different labels; each is split, id and label."""

    one: tuple[str, str, str]
    other: tuple[str, str, str]


@dataclass(frozen=True)
class TaskSummary:
    """The examples of one task."""

    task: Task
    unit: str
    limit: int | None
    is_joint: bool
    """Whether lengths are those of pairs that are read as one sequence."""
    splits: Mapping[str, SplitSummary]
    contradictions: int
    """Number of distinct sentences, or pairs, that occur with different labels, in one split or in several."""
    contradiction: Contradiction | None
    """The first of them."""
    overlaps: Sequence[Overlap]


def summarize(data: Data, files: Mapping[str, Mapping[str, Sequence[str]]], ruler: Ruler,
              joint: Sequence[str] = ()) -> dict[str, TaskSummary]:
    """Summarize each task of a suite.

    `files` holds the files of each task and split, `joint` the tasks whose pairs are read as one sequence.
    """
    overlaps = data.overlaps()
    summaries = {}
    for name, task in data.tasks.items():
        splits = {split: _split(task, part, tuple(files.get(name, {}).get(split, ())), data.dropped, ruler,
                                name in joint) for split, part in data.splits[name].items()}
        count, first = _contradictions(task, data.splits[name])
        summaries[name] = TaskSummary(task, ruler.unit, ruler.limit, name in joint, splits, count, first,
                                      [overlap for overlap in overlaps if overlap.task == name])
    return summaries


def _split(task: Task, part: Examples, files: tuple[str, ...], dropped: Mapping[str, int], ruler: Ruler,
           is_joint: bool) -> SplitSummary:
    """Summarize one split."""
    firsts: dict[Reading, str] = {}
    repeated = [(id, firsts[texts]) for id, texts in zip(part.ids, part.sentences(), strict=True)
                if firsts.setdefault(texts, id) != id]
    is_scale = task.kind == "regression"
    return SplitSummary(
        len(part), files, sum(dropped.get(file, 0) for file in files), _lengths(part, ruler, is_joint),
        None if is_scale or part.labels is None else _classes(task, part.labels),
        Scale(*np.percentile(part.labels, (0, 25, 50, 75, 100)).tolist()) if is_scale and part.labels is not None
        else None,
        len(repeated), repeated[0] if repeated else ())


def _lengths(part: Examples, ruler: Ruler, is_joint: bool) -> Lengths:
    """Return the lengths of the sentences of a split, or of its pairs."""
    readings: list[Reading] = part.sentences() if is_joint else [(text,) for text in (*part.first, *part.second)]
    lengths = np.array(ruler.measure(readings))
    above = np.flatnonzero(lengths > ruler.limit) % len(part) if ruler.limit is not None else np.empty(0, int)
    return Lengths(float(np.median(lengths)), float(np.percentile(lengths, 95)), int(lengths.max()),
                   part.ids[int(lengths.argmax()) % len(part)], len(above), part.ids[above.min()] if len(above) else "")


def _classes(task: Task, labels: np.ndarray) -> dict[str, int]:
    """Return the number of examples of each class, or with each label of a multi-label task, by its name."""
    counts = labels.sum(axis=0) if labels.ndim > 1 else np.bincount(labels.astype(int), minlength=len(task.names))
    return {name: int(count) for name, count in zip(task.names, counts, strict=True)}


def _contradictions(task: Task, splits: Mapping[str, Examples]) -> tuple[int, Contradiction | None]:
    """Count the sentences of a task that have several labels; return the first two examples of them."""
    known: dict[Reading, tuple[str, str, object]] = {}
    found: Counter[Reading] = Counter()
    first = None
    for split, part in splits.items():
        labels = [] if part.labels is None else part.labels.tolist()
        for id, texts, label in zip(part.ids, part.sentences(), labels, strict=False):
            earlier = known.setdefault(texts, (split, id, label))
            if earlier[2] != label:
                found[texts] += 1
                first = first or (earlier, (split, id, label))
    if first is None:
        return 0, None
    one, other = ((split, id, label_text(task, label)) for split, id, label in first)
    return len(found), Contradiction(one, other)


def label_text(task: Task, label: object) -> str:
    """Return a label as people read it: the name of the class, the names of all labels, or the number."""
    if isinstance(label, list):
        return ", ".join(name for name, has in zip(task.names, label, strict=True) if has) or "none"
    assert isinstance(label, int | float)
    return f"{label:g}" if task.kind == "regression" else task.names[int(label)]


def spread(part: Examples, count: int) -> list[int]:
    """Return the positions of at most `count` examples, evenly spread over a split: files are often sorted by label."""
    count = min(count, len(part))
    return [number * len(part) // count for number in range(count)]
