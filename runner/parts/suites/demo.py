"""The suite `demo`: synthetic English examples from a small grammar, identical on every machine.

Sentences are generated from meanings, which determine the labels: two sentences are paraphrases if and only if their
events are equal, similarity is the share of slots that the events have in common, and the class of a review is computed
from the values of its words, negations and contrasts. Words and patterns are in demo_words.toml.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tomli
from pydantic import Field

from ...files import sha256
from ...tasks.data import SPLITS, Data, Examples, Task
from . import Suite

T = TypeVar("T")

Example = tuple[str, str, float]
"""First sentence, second sentence (empty for a review), label."""

Event = tuple[int, ...]
"""Index of the meaning of each slot of a frame in the slot's pool (-1: empty); last, 1 if the event is negated."""

WORDS = Path(__file__).with_name("demo_words.toml")

TASKS = {
    "sentiment": Task(title="Sentiment", kind="classification", classes=5),
    "paraphrase": Task(title="Paraphrase", kind="binary", sentences=2),
    "similarity": Task(title="Similarity", kind="regression", high=5.0, sentences=2),
}

NOISE = 0.04
"""Share of sentiment and paraphrase labels that are wrong, to simulate annotation errors."""

SPREAD = 0.3
"""Maximum error of a similarity label."""

DENIED = 0.15
"""Share of negated events, for frames with negated forms."""

SWAPPED = 0.25
"""Share of unequal pairs whose events have swapped roles."""

CHANGED_AGAIN = 0.3
"""Probability of each further change to an unequal pair."""

NEAR = 0.6
"""Probability that a meaning is changed to a similar one, such as a nurse for a doctor."""

KEPT_EQUAL, KEPT_UNEQUAL, KEPT_GRADED = 0.5, 0.5, 0.4
"""Probabilities that the second sentence of a pair keeps a choice of words; not higher for equal pairs."""

CLAIMS, DENIALS = 0.65, 0.25
"""Shares of affirmative and of negated clauses; the rest are reversals."""

DEGREED = 0.5
"""Share of affirmative clauses with an adverb of degree."""

JOINED = 0.25
"""Share of reviews with two clauses."""


class Dice:
    """Reproducible random draws: Python guarantees only seeding and `random()` across versions."""

    def __init__(self, seed: str) -> None:
        self.uniform = random.Random(seed).random

    def below(self, n: int) -> int:
        """Return a number from 0 to n - 1."""
        return int(self.uniform() * n)

    def of(self, items: Sequence[T]) -> T:
        """Return a random item."""
        return items[int(self.uniform() * len(items))]


@dataclass(frozen=True)
class Frame:
    """Template of a kind of event: its slots and its sentence patterns."""

    slots: tuple[str, ...]
    pools: tuple[tuple[tuple[tuple[str, ...], ...], ...], ...]
    """Slot -> meanings -> synonyms -> word forms."""
    rates: tuple[float, ...]
    """Probability that each slot is filled."""
    weights: tuple[float, ...]
    """Weight of each slot in the similarity."""
    swaps: tuple[tuple[int, int], ...]
    """Pairs of slots that `swap` exchanges."""
    forms: tuple[tuple[str, ...], ...]
    """Affirmative patterns and, if there are any, negated patterns."""

    def draw(self, dice: Dice) -> Event:
        """Draw a random event; slots of the same pool have different meanings."""
        event: list[int] = []
        for pool, rate in zip(self.pools, self.rates, strict=True):
            value = dice.below(len(pool)) if dice.uniform() < rate else -1
            taken = [v for v, p in zip(event, self.pools, strict=False) if p is pool]
            while value >= 0 and value in taken:
                value = dice.below(len(pool))
            event.append(value)
        return (*event, int(len(self.forms) > 1 and dice.uniform() < DENIED))

    def swap(self, event: Event) -> Event:
        """Return the event with the meanings of paired slots exchanged."""
        new = list(event)
        for a, b in self.swaps:
            new[a], new[b] = new[b], new[a]
        return tuple(new)

    def change(self, event: Event, dice: Dice, near: float) -> Event:
        """Change one random filled slot, to the similar meaning with probability `near`."""
        filled = [i for i, v in enumerate(event[:-1]) if v >= 0] + ([len(event) - 1] if len(self.forms) > 1 else [])
        slot = dice.of(filled)
        new = list(event)
        if slot == len(event) - 1:
            new[slot] = 1 - new[slot]
        else:
            pool = self.pools[slot]
            taken = [v for v, p in zip(event, self.pools, strict=False) if p is pool]
            value = new[slot] ^ 1 if dice.uniform() < near else dice.below(len(pool))
            while value in taken:
                value = dice.below(len(pool))
            new[slot] = value
        return tuple(new)

    def similarity(self, a: Event, b: Event) -> float:
        """Return the weighted share of slots that two events have in common, similar meanings counting half."""
        share = total = 0.0
        for weight, x, y in zip(self.weights, a, b, strict=False):
            if x >= 0 or y >= 0:
                total += weight
                share += weight * (1.0 if x == y else 0.5 if x >= 0 and x ^ 1 == y else 0.0)
        return share / total * (1.0 if a[-1] == b[-1] else 0.6)

    def sentence(self, event: Event, wording: Sequence[float]) -> str:
        """Return a sentence for the event; `wording` holds random numbers that select synonyms and pattern."""
        fill = {}
        for slot, pool, value, choice in zip(self.slots, self.pools, event, wording, strict=False):
            words = pool[value][int(choice * len(pool[value]))] if value >= 0 else ("",)
            if len(words) == 1:
                fill[slot] = words[0]
            else:
                for i, word in enumerate(words):
                    fill[f"{slot}{i}"] = word
        forms = self.forms[event[-1]]
        return finish(forms[int(wording[-1] * len(forms))].format(**fill))


def finish(text: str) -> str:
    """Normalize spaces, capitalize, and add a full stop unless there is a question mark."""
    text = " ".join(text.split())
    return text[0].upper() + text[1:] + ("" if text[-1] == "?" else ".")


@cache
def words() -> dict[str, Any]:
    """Load the words and patterns."""
    return tomli.loads(WORDS.read_text("utf-8"))


@cache
def frames() -> tuple[tuple[Frame, float], ...]:
    """Return the frames with their probabilities."""
    pools = {name: tuple(tuple(tuple(word.split("|")) for word in meaning) for meaning in pool)
             for name, pool in words()["pools"].items()}
    out = []
    for table in words()["frames"].values():
        slots = tuple(table["slots"])
        names, weights, rates = zip(*table["slots"].values(), strict=True)
        swaps = tuple((slots.index(a), slots.index(b)) for a, b in table["swap"])
        forms = tuple(tuple(table[key]) for key in ("forms", "denied") if key in table)
        out.append((Frame(slots, tuple(pools[name] for name in names), rates, weights, swaps, forms), table["share"]))
    return tuple(out)


def draw_frame(dice: Dice) -> Frame:
    """Draw a frame by its probability."""
    left = dice.uniform()
    for frame, share in frames()[:-1]:
        left -= share
        if left < 0:
            return frame
    return frames()[-1][0]


def sentence_pair(frame: Frame, a: Event, b: Event, kept: float, dice: Dice) -> tuple[str, str]:
    """Return sentences for two events, in random order; they share each choice of words with probability `kept`."""
    wording = [dice.uniform() for _ in a]
    other = [choice if dice.uniform() < kept else dice.uniform() for choice in wording]
    first, second = frame.sentence(a, wording), frame.sentence(b, other)
    return (first, second) if dice.uniform() < 0.5 else (second, first)


def paraphrase(dice: Dice) -> Example:
    """Generate a pair; the label is 1 if both sentences have the same meaning."""
    frame = draw_frame(dice)
    a = frame.draw(dice)
    if dice.uniform() < 0.5:
        b, kept = a, KEPT_EQUAL
    elif dice.uniform() < SWAPPED:
        b, kept = frame.swap(a), KEPT_UNEQUAL
    else:
        b, kept = frame.change(a, dice, NEAR), KEPT_UNEQUAL
        while dice.uniform() < CHANGED_AGAIN:
            b = frame.change(b, dice, NEAR)
    first, second = sentence_pair(frame, a, b, kept, dice)
    return first, second, float((a == b) != (dice.uniform() < NOISE))


def similarity(dice: Dice) -> Example:
    """Generate a pair with its similarity from 0 to 5."""
    frame = draw_frame(dice)
    a = frame.draw(dice)
    b = frame.swap(a) if dice.uniform() < 0.35 else a
    for _ in range(dice.below(5)):
        b = frame.change(b, dice, 0.5)
    b = frame.draw(dice) if dice.uniform() < 0.1 else b
    first, second = sentence_pair(frame, a, b, KEPT_GRADED, dice)
    score = 5 * frame.similarity(a, b) + SPREAD * (2 * dice.uniform() - 1)
    return first, second, min(5.0, max(0.0, round(score * 5) / 5))


def clause(dice: Dice, aspect: str) -> tuple[str, float]:
    """Generate a clause about one aspect, with its value from -3 to 3."""
    review = words()["review"]
    value = float(dice.of([2, 1, -1, -2]))
    word, kind = dice.of(review["values"][f"{value:.0f}"]), dice.uniform()
    if kind < CLAIMS:
        forms = review["claims"]
        if dice.uniform() < DEGREED:
            degree = dice.of(["1.5", "0.5"])
            word, value = f"{dice.of(review['degrees'][degree])} {word}", value * float(degree)
    elif kind < CLAIMS + DENIALS:
        forms, value = review["denials"], value - 2 if value > 0 else value + 2
    else:
        forms, value = review["reversals"], -value
    return dice.of(forms).format(aspect=aspect, word=word, a="an" if word[0] in "aeiou" else "a"), value


def sentiment(dice: Dice) -> Example:
    """Generate a review with its class, 0 to 4."""
    review = words()["review"]
    aspects = review["aspects"]
    first = dice.below(len(aspects))
    second = (first + 1 + dice.below(len(aspects) - 1)) % len(aspects)
    text, value = clause(dice, aspects[first])
    if dice.uniform() < JOINED:
        weak, weaker = clause(dice, aspects[second])
        equal = dice.uniform() < 0.25
        share = 0.5 if equal else 0.75
        text = dice.of(review["equal" if equal else "contrasts"]).format(weak=weak, strong=text)
        value = share * value + (1 - share) * weaker
    label = 2 + (value > 0.4) + (value > 1.4) - (value < -0.4) - (value < -1.4)
    if dice.uniform() < NOISE:
        label += 1 if label == 0 or (label < 4 and dice.uniform() < 0.5) else -1
    return finish(text), "", float(label)


def distinct(make: Callable[[Dice], Example], dice: Dice) -> Iterator[Example]:
    """Yield examples without duplicates; the order of a pair does not matter."""
    seen = set()
    while True:
        first, second, label = make(dice)
        key = (min(first, second), max(first, second))
        if first != second and key not in seen:
            seen.add(key)
            yield first, second, label


class Demo(Suite):
    """Synthetic English reviews, paraphrases and similarity pairs from a small grammar, identical on every machine."""

    type = "demo"

    train: int = Field(default=4000, ge=1, le=10_000)
    """Training examples of each task."""
    dev: int = Field(default=1000, ge=1, le=10_000)
    """Dev examples of each task."""
    test: int = Field(default=800, ge=1, le=10_000)
    """Test examples of each task; they have labels too."""
    seed: int = Field(default=1, ge=0)
    """Seed of the examples."""

    def meanings(self) -> Mapping[str, Task]:
        """Return the tasks by name, without generating data."""
        return TASKS

    def inputs(self, project: Path) -> dict[str, str]:
        """Return the sha256 of demo_words.toml, the only file that the examples depend on."""
        return {WORDS.name: sha256(WORDS)}

    def load(self, project: Path) -> Data:
        """Generate the examples."""
        splits: dict[str, dict[str, Examples]] = {}
        for task, make in (("sentiment", sentiment), ("paraphrase", paraphrase), ("similarity", similarity)):
            source = distinct(make, Dice(f"{task} {self.seed}"))
            for split in SPLITS:
                examples = list(islice(source, getattr(self, split)))
                first, second, labels = zip(*examples, strict=True)
                ids = tuple(f"{split}-{number}" for number in range(len(examples)))
                splits.setdefault(task, {})[split] = Examples(ids, first, second if second[0] else (), np.array(labels))
        return Data(TASKS, splits)
