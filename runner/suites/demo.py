"""The suite `demo`: English-like examples that a small grammar makes, the same ones everywhere.

Meanings come first, sentences second, so every label follows from meanings: two sentences are paraphrases if and
only if their events are equal, their similarity counts what the events share, and a review's class is the value that
its words, negations and contrasts compose. Words and patterns are in demo_words.toml.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import Field

from . import SPLITS, Data, Examples, Suite, Task

T = TypeVar("T")
Example = tuple[str, str, float]
"""First sentence, second sentence (empty for a review), label."""
Event = tuple[int, ...]
"""For each slot of a frame, which meaning of the slot's pool (-1: the slot is empty); last, 1 for a denial."""

TASKS = {
    "sentiment": Task(title="Sentiment", kind="classification", classes=5),
    "paraphrase": Task(title="Paraphrase", kind="binary", sentences=2),
    "similarity": Task(title="Similarity", kind="regression", high=5.0, sentences=2),
}
NOISE = 0.04
"""Share of sentiment and paraphrase labels that are wrong, as annotators' are."""
SPREAD = 0.3
"""Largest error of a similarity label."""
DENIED = 0.15
"""Share of events that did not happen, where a frame can say so."""
SWAPPED = 0.5
"""Share of unequal pairs that differ by who is who."""


class Dice:
    """Draws that are the same everywhere: of Python's generator only seeding and `random()` are promised to stay."""

    def __init__(self, seed: str) -> None:
        self.uniform = random.Random(seed).random

    def below(self, n: int) -> int:
        """Return a number from 0 to n - 1."""
        return int(self.uniform() * n)

    def of(self, items: Sequence[T]) -> T:
        """Return one of the items."""
        return items[int(self.uniform() * len(items))]


@dataclass(frozen=True)
class Frame:
    """A kind of event: its slots, and the forms of a sentence that tell it."""

    slots: tuple[str, ...]
    pools: tuple[tuple[tuple[tuple[str, ...], ...], ...], ...]
    """For each slot its meanings, for each meaning its synonyms, for each synonym its word forms."""
    weights: tuple[float, ...]
    rates: tuple[float, ...]
    swaps: tuple[tuple[tuple[int, int], ...], ...]
    forms: tuple[tuple[str, ...], ...]
    """Forms that affirm, and forms that deny (perhaps none)."""

    def draw(self, dice: Dice) -> Event:
        """Return an event at random; two slots of one pool never mean the same."""
        event: list[int] = []
        for pool, rate, slot in zip(self.pools, self.rates, self.slots, strict=True):
            value = dice.below(len(pool)) if dice.uniform() < rate else -1
            taken = [v for v, p in zip(event, self.pools) if p is pool]
            while value >= 0 and value in taken:
                value = dice.below(len(pool))
            event.append(value)
        denied = len(self.forms) > 1 and dice.uniform() < DENIED
        return (*event, int(denied))

    def swap(self, event: Event, dice: Dice) -> Event:
        """Return the event with two slots' meanings exchanged."""
        new = list(event)
        for a, b in self.swaps:
            new[a], new[b] = new[b], new[a]
        return tuple(new)

    def change(self, event: Event, dice: Dice, near: float) -> Event:
        """Return the event with one filled slot changed, to the near meaning with probability `near`."""
        filled = [i for i, v in enumerate(event[:-1]) if v >= 0] + ([len(event) - 1] if len(self.forms) > 1 else [])
        slot = dice.of(filled)
        new = list(event)
        if slot == len(event) - 1:
            new[slot] = 1 - new[slot]
        else:
            pool = self.pools[slot]
            taken = [v for v, p in zip(event, self.pools) if p is pool]
            value = new[slot] ^ 1 if dice.uniform() < near else dice.below(len(pool))
            while value in taken:
                value = dice.below(len(pool))
            new[slot] = value
        return tuple(new)

    def alike(self, a: Event, b: Event) -> float:
        """Return the weighted share of two events' slots that agree, near meanings counting half."""
        share = total = 0.0
        for weight, x, y in zip(self.weights, a, b):
            if x >= 0 or y >= 0:
                total += weight
                share += weight * (1.0 if x == y else 0.5 if x >= 0 and x ^ 1 == y else 0.0)
        return share / total * (1.0 if a[-1] == b[-1] else 0.6)

    def tell(self, event: Event, wording: Sequence[float]) -> str:
        """Return a sentence that tells the event; `wording` chooses the form and the synonyms."""
        fill = {}
        for slot, pool, value, choice in zip(self.slots, self.pools, event, wording):
            words = pool[value][int(choice * len(pool[value]))] if value >= 0 else ("",)
            if len(words) == 1:
                fill[slot] = words[0]
            else:
                for i, word in enumerate(words):
                    fill[f"{slot}{i}"] = word
        forms = self.forms[event[-1]]
        return finish(forms[int(wording[-1] * len(forms))].format(**fill))


def finish(text: str) -> str:
    """Return a text as a sentence: single spaces, a capital, a full stop or question mark."""
    text = " ".join(text.split())
    return text[0].upper() + text[1:] + ("" if text[-1] == "?" else ".")


@cache
def words() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("demo_words.toml").read_text("utf-8"))


@cache
def frames() -> tuple[tuple[float, ...], tuple[Frame, ...]]:
    w = words()
    pools = {name: tuple(tuple(tuple(s.split("|")) for s in m) for m in pool) for name, pool in w["pools"].items()}
    out, shares = [], []
    for f in w["frames"].values():
        slots = tuple(f["slots"])
        at = slots.index
        out.append(Frame(slots, tuple(pools[p] for p, _, _ in f["slots"].values()),
                         tuple(x for _, x, _ in f["slots"].values()), tuple(x for _, _, x in f["slots"].values()),
                         tuple((at(a), at(b)) for a, b in f["swap"]),
                         (tuple(f["forms"]), tuple(f["denied"])) if "denied" in f else (tuple(f["forms"]),)))
        shares.append(f["share"])
    return tuple(shares), tuple(out)


def draw_frame(dice: Dice) -> Frame:
    shares, fs = frames()
    u = dice.uniform()
    for s, f in zip(shares, fs):
        u -= s
        if u < 0:
            return f
    return fs[-1]


P = dict(keep_pos=0.2, keep_neg=0.6, near=0.6)


def pair(frame: Frame, a: Event, b: Event, keep: float, dice: Dice) -> tuple[str, str]:
    """Tell two events; each choice of words is kept with probability `keep`."""
    wa = [dice.uniform() for _ in a]
    wb = [x if dice.uniform() < keep else dice.uniform() for x in wa]
    sa, sb = frame.tell(a, wa), frame.tell(b, wb)
    return (sa, sb) if dice.uniform() < 0.5 else (sb, sa)


def paraphrase(dice: Dice) -> Example:
    frame = draw_frame(dice)
    a = frame.draw(dice)
    if dice.uniform() < 0.5:
        b, keep = a, P["keep_pos"]
    elif dice.uniform() < SWAPPED:
        b, keep = frame.swap(a, dice), P["keep_neg"]
    else:
        b, keep = frame.change(a, dice, P["near"]), P["keep_neg"]
    s, t = pair(frame, a, b, keep, dice)
    return s, t, float((a == b) != (dice.uniform() < NOISE))


def similarity(dice: Dice) -> Example:
    frame = draw_frame(dice)
    a = frame.draw(dice)
    b = a
    if dice.uniform() < 0.35:
        b = frame.swap(b, dice)
    for _ in range(dice.below(5)):
        b = frame.change(b, dice, 0.5)
    if dice.uniform() < 0.1:
        b = frame.draw(dice)
    s, t = pair(frame, a, b, 0.4, dice)
    score = 5 * frame.alike(a, b) + SPREAD * (2 * dice.uniform() - 1)
    return s, t, min(5.0, max(0.0, round(score * 5) / 5))


def clause(dice: Dice, aspect: str) -> tuple[str, float]:
    r = words()["review"]
    value = dice.of([2, 1, -1, -2])
    word, factor = dice.of(r["values"][str(value)]), 1.0
    u = dice.uniform()
    if u < 0.45:
        forms, turn = r["claims"], lambda v: v
    elif u < 0.85:
        forms, turn = r["denials"], lambda v: v - 2 if v > 0 else v + 2
    else:
        forms, turn = r["reversals"], lambda v: -v
    if u < 0.45 and dice.uniform() < 0.6:
        degree = dice.of(["1.5", "0.5"])
        word, factor = f"{dice.of(r['degrees'][degree])} {word}", float(degree)
    text = dice.of(forms).format(aspect=aspect, word=word, a="an" if word[0] in "aeiou" else "a")
    return text, turn(value * factor)


def sentiment(dice: Dice) -> Example:
    r = words()["review"]
    aspects = r["aspects"]
    i = dice.below(len(aspects))
    j = (i + 1 + dice.below(len(aspects) - 1)) % len(aspects)
    text, value = clause(dice, aspects[i])
    if dice.uniform() < 0.5:
        other, weak = clause(dice, aspects[j])
        if dice.uniform() < 0.25:
            text, value = dice.of(r["equal"]).format(weak=other, strong=text), (value + weak) / 2
        else:
            text, value = dice.of(r["contrasts"]).format(weak=other, strong=text), 0.75 * value + 0.25 * weak
    label = 2 + (value > 0.4) + (value > 1.4) - (value < -0.4) - (value < -1.4)
    if dice.uniform() < NOISE:
        label = label + 1 if label < 4 and dice.uniform() < 0.5 else label - 1 if label > 0 else 1
    return finish(text), "", float(label)


def distinct(make: Callable[[Dice], Example], dice: Dice) -> Iterator[Example]:
    seen = set()
    while True:
        first, second, label = make(dice)
        key = (first, second) if first < second else (second, first)
        if first != second and key not in seen:
            seen.add(key)
            yield first, second, label


class Demo(Suite):
    """Generated English for three tasks."""

    type = "demo"
    train: int = Field(default=4000, ge=1)
    dev: int = Field(default=500, ge=1)
    test: int = Field(default=800, ge=1)
    seed: int = 1

    def meanings(self) -> dict[str, Task]:
        """Return the tasks by name, without reading any data."""
        return TASKS

    def load(self, project: Path) -> Data:
        splits = {}
        for name, make in (("sentiment", sentiment), ("paraphrase", paraphrase), ("similarity", similarity)):
            it = distinct(make, Dice(f"{name} {self.seed}"))
            splits[name] = {}
            for split in SPLITS:
                ex = [next(it) for _ in range(getattr(self, split))]
                f, s, l = zip(*ex)
                splits[name][split] = Examples(tuple(f"{split}-{i}" for i in range(len(ex))), f, s if s[0] else (),
                                               np.array(l))
        return Data(TASKS, splits)
