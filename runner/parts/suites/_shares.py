"""Splits that are shares or folds of the training examples: stratified, in groups, the same in any order of the rows.

What goes where depends on the seed and on the groups alone. The rows of a group, by default those with the same
sentences, stay together; each class, set of labels or tenth of the scores is divided alike.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from ._labels import Label
from ._source import Fold, Source

Key = tuple[str, ...]
"""What the rows of a group have in common: the value of a column, or their sentences."""


def splits_of(keys: Sequence[Key], labels: Sequence[Label], source: Source) -> list[str]:
    """Return the split of each training example: train, or one that is a share or a fold; `keys` are their groups."""
    groups: dict[Key, list[Label]] = defaultdict(list)
    for key, label in zip(keys, labels, strict=True):
        groups[key].append(label)
    sizes = {key: len(members) for key, members in groups.items()}
    strata = _strata({key: _common(members) for key, members in groups.items()}, source)
    split_of = _shared(strata, sizes, source.shares())
    if isinstance(source.dev, Fold):
        rest = [[key for key in stratum if key not in split_of] for stratum in strata]
        fold_of = _folded(rest, sizes, source.dev.folds)
        split_of |= {key: "dev" for key, fold in fold_of.items() if fold == source.dev.fold}
    return [split_of.get(key, "train") for key in keys]


def draw(key: Sequence[str], seed: int) -> str:
    """Return 64 pseudo-random hex digits that depend on a group, or on a row, and on a seed alone."""
    return hashlib.sha256("\0".join([str(seed), *key]).encode()).hexdigest()


def is_drawn(row: Sequence[str], share: float, seed: int) -> bool:
    """Return whether a row belongs to a share of the rows of its file; that depends on no other row."""
    return share == 1 or int(draw(("share", *row), seed), 16) < share * 16**64


def _common(labels: Sequence[Label]) -> Label:
    """Return the most frequent label of a group, the lowest of several."""
    return min(Counter(labels).items(), key=lambda item: (-item[1], item[0]))[0]


def _strata(labels: Mapping[Key, Label], source: Source) -> list[list[Key]]:
    """Return the groups of each label, or of each tenth of the scores, in random order."""
    ranked = sorted(labels, key=lambda key: (labels[key], draw(key, source.split_seed)))
    strata: dict[Label, list[Key]] = defaultdict(list)
    for rank, key in enumerate(ranked):
        strata[10 * rank // len(ranked) if source.kind == "regression" else labels[key]].append(key)
    return [sorted(stratum, key=lambda key: draw(key, source.split_seed)) for stratum in strata.values()]


def _shared(strata: Sequence[Sequence[Key]], sizes: Mapping[Key, int], shares: Mapping[str, float]) -> dict[Key, str]:
    """Return the split of each group that goes to one with a share."""
    split_of: dict[Key, str] = {}
    missing = dict.fromkeys(shares, 0.0)  # examples that a split lacks, carried from stratum to stratum
    for stratum in strata:
        left = list(stratum)
        count = sum(sizes[key] for key in stratum)
        for split, share in shares.items():
            missing[split] += share * count
            while missing[split] >= 0.5 and left:
                key = left.pop()
                split_of[key] = split
                missing[split] -= sizes[key]
    return split_of


def _folded(strata: Sequence[Sequence[Key]], sizes: Mapping[Key, int], folds: int) -> dict[Key, int]:
    """Return the fold of each group: that with the fewest examples of its stratum so far, then with the fewest."""
    fold_of: dict[Key, int] = {}
    total = dict.fromkeys(range(1, folds + 1), 0)
    for stratum in strata:
        here = dict.fromkeys(total, 0)
        for key in stratum:
            fold = min(total, key=lambda fold: (here[fold], total[fold]))
            fold_of[key] = fold
            here[fold] += sizes[key]
            total[fold] += sizes[key]
    return fold_of
