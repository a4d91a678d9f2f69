"""Significance: intervals of published scores, and the p-values of all pairs of published systems.

`results/<profile>/significance.json` is made of the predictions of a build and of those that earlier builds kept, so
that a table needs neither data nor predictions. It is byte-stable: an entry depends on the suite and on the systems
named in it alone, whenever and with whichever others it was made.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from ..errors import MtrunError, Place, Problem, RegistryError
from ..files import remove, reported, write_bytes
from ..lazy import deferred
from ..part import StrictRecord
from ..tasks import bootstrap
from ..tasks.data import Data
from ..tasks.metrics import OVERALL, Scores, outcomes, score, score_split
from ..tasks.predictions import Predictions
from .result import SIGNIFICANCE, Result, ResultNode

with deferred("numpy"):
    import numpy as np

SPLITS = ("dev", "test")

MOST = 100
"""How many systems of a suite, the best on dev, are tested in pairs, whose number grows with the square."""

Find = Callable[[str], Predictions | None]
"""From the id of a node to its Predictions, where they are at hand."""

_Share = Annotated[float, Field(ge=-1, le=1)]

_Score = tuple[_Share, _Share, _Share] | None


class Evidence(StrictRecord):
    """What is known of the systems of one suite, each list in the order of `columns`."""

    columns: tuple[str, ...] = ()
    """The suite's tasks, and overall."""
    systems: dict[str, dict[str, tuple[_Score, ...]]] = Field(default_factory=dict)
    """Id -> split -> score, as it is shown, and both ends of its interval."""
    pairs: dict[str, dict[str, tuple[_Share | None, ...]]] = Field(default_factory=dict)
    """Two ids in their order -> split -> p-value."""

    def interval(self, id: str, split: str, column: str, score: float | None) -> tuple[float, float] | None:
        """Return both ends of a score's interval; None where it is not known of this very score."""
        found = self._at(self.systems.get(id, {}), split, column)
        return (found[1], found[2]) if found and found[0] == score else None

    def p(self, one: str, other: str, split: str, column: str) -> float | None:
        """Return the p-value of the difference between two systems, or None where it is not known."""
        found = self._at(self.pairs.get(_pair(one, other), {}), split, column)
        return None if found is None else float(found)

    def only(self, systems: Mapping[str, Scores], tested: Collection[str]) -> Evidence:
        """Return what is known of systems that still have these scores, as they are shown, and of pairs of some."""
        kept = {id: found for id, found in self.systems.items() if id in systems and all(
            [at and at[0] for at in by_column] == [systems[id].get(split, {}).get(c) for c in self.columns]
            for split, by_column in found.items())}
        pairs = {pair: p for pair, p in self.pairs.items() if kept.keys() & set(tested) >= set(pair.split())}
        return Evidence(columns=self.columns, systems=kept, pairs=pairs)

    def _at(self, by_split: Mapping[str, Sequence[Any]], split: str, column: str) -> Any:
        found = by_split.get(split)
        return found[self.columns.index(column)] if found and column in self.columns else None


class Significance(StrictRecord):
    """The file of one profile."""

    format: Literal[1] = 1
    suites: dict[str, Evidence] = Field(default_factory=dict)
    """By the hash of the suite's content."""

    @classmethod
    def read(cls, folder: Path) -> Significance:
        """Return the file in a folder of results, empty where there is none; raise RegistryError for damage."""
        path = folder / SIGNIFICANCE
        if not path.exists():
            return cls()
        with reported("read", path):
            data = path.read_bytes()
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            notes = tuple(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False)[:5])
        raise RegistryError(Problem("this file of intervals and tests is damaged", Place(str(path)), notes,
                                    hint="remove it; the next build makes it again"))

    def to_json(self) -> bytes:
        """Return the bytes of the file, one line for each system and pair."""
        suites = []
        for sha256, evidence in sorted(self.suites.items()):
            parts = [f'  "columns": {json.dumps(evidence.columns)}']
            for name, entries in (("systems", evidence.systems), ("pairs", evidence.pairs)):
                lines = [f'   {json.dumps(key)}: {json.dumps(entry)}' for key, entry in sorted(entries.items())]
                parts.append(f'  "{name}": {{\n' + ",\n".join(lines) + "\n  }")
            suites.append(f' "{sha256}": {{\n' + ",\n".join(parts) + "\n }")
        return ('{\n"format": 1,\n"suites": {\n' + ",\n".join(suites) + "\n}\n}\n").encode()


def _pair(one: str, other: str) -> str:
    return f"{min(one, other)} {max(one, other)}"


@dataclass(frozen=True)
class ScoredSystem:
    """A published node: its Predictions, and its scores as they are shown, which are honest on dev."""

    said: Predictions
    shown: Scores


@dataclass(frozen=True)
class Measured:
    """One split's scores [S] of S systems as shown, both ends [S] of their intervals, by column.

    With the p-values [T, T] of the first T of them. What a system lacks is nan.
    """

    shown: dict[str, np.ndarray]
    ends: dict[str, tuple[np.ndarray, np.ndarray]]
    p: dict[str, np.ndarray]


def measured(data: Data, sha256: str, split: str, systems: Sequence[ScoredSystem], tested: int) -> Measured:
    """Return how far the scores of some systems can be trusted; `sha256` is the hash of `data`, `tested` is T."""
    columns = (*data.tasks, OVERALL)
    shown = _listed([system.shown.get(split, {}) for system in systems], columns)
    points = _listed([score_split(system.said, data, split) for system in systems], columns)
    draws: dict[str, np.ndarray] = {}
    p: dict[str, np.ndarray] = {}
    for name, task in data.tasks.items():
        draws[name] = np.full((bootstrap.RESAMPLES, len(systems)), np.nan)
        p[name] = np.full((tested, tested), np.nan)
        having = np.flatnonzero(np.isfinite(points[name])).tolist()
        if having:
            found, labels = _outcomes(data, name, split, [systems[i].said for i in having])
            seen = bootstrap.resampled(task, found, labels, bootstrap.seed(sha256, split, name))
            draws[name][:, having] = seen
            both = [i for i in having if i < tested]
            p[name][np.ix_(both, both)] = (
                bootstrap.paired(shown[name][both], points[name][both], seen[:, : len(both)])
                if task.kind == "regression" else bootstrap.mcnemar(found[:, : len(both)], shown[name][both]))
    draws[OVERALL] = bootstrap.overall(draws, data.tasks)
    p[OVERALL] = bootstrap.paired(shown[OVERALL][:tested], points[OVERALL][:tested], draws[OVERALL][:, :tested])
    return Measured(shown, {column: _ends(draws[column], shown[column] - points[column]) for column in columns}, p)


def _listed(systems: Sequence[Mapping[str, float | None]], columns: Sequence[str]) -> dict[str, np.ndarray]:
    """Return scores [S] by column, nan for None."""
    return {column: np.array([np.nan if (value := scores.get(column)) is None else value for scores in systems])
            for column in columns}


def _outcomes(data: Data, task: str, split: str, systems: Sequence[Predictions]) -> tuple[np.ndarray, np.ndarray]:
    """Return the outcomes [n, S] of one task, which all systems predict, and the labels [n]."""
    labels = data.splits[task][split].labels
    said = [system.find(data, split, task) for system in systems]
    assert labels is not None
    return np.stack([outcomes(data.tasks[task], s, labels) for s in said if s is not None], axis=1), labels


def _ends(draws: np.ndarray, optimism: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both ends [S] of the intervals of draws [b, S], brought to where the scores are that are shown."""
    low, high = (np.clip(end + optimism, -1, 1) for end in bootstrap.interval(draws))
    return low, high


def evidence(data: Data, sha256: str, found: Mapping[str, ScoredSystem], untested: Collection[str] = ()) -> Evidence:
    """Return intervals of systems by id, and p-values of all pairs but those of some of them."""
    ids = sorted(found, key=lambda id: (id in untested, id))
    tested = [id for id in ids if id not in untested]
    made = Evidence(columns=(*data.tasks, OVERALL), systems={id: {} for id in ids},
                    pairs={_pair(*pair): {} for pair in combinations(tested, 2)})
    for split in SPLITS:
        this = measured(data, sha256, split, [found[id] for id in ids], len(tested))
        if all(np.isnan(scores).all() for scores in this.shown.values()):
            continue
        for i, id in enumerate(ids):
            made.systems[id][split] = tuple(_score(this, column, i) for column in made.columns)
        for i, j in combinations(range(len(tested)), 2):
            made.pairs[_pair(ids[i], ids[j])][split] = tuple(_p(this.p[c][i, j], this.shown[c][[i, j]])
                                                             for c in made.columns)
    return made


def _score(this: Measured, column: str, i: int) -> _Score:
    """Return one system's score with its interval to 4 digits, or None."""
    value, low, high = (float(each[i]) for each in (this.shown[column], *this.ends[column]))
    return None if np.isnan([value, low]).any() else (value, round(low, 4) + 0.0, round(high, 4) + 0.0)


def _p(value: float, shown: np.ndarray) -> float | None:
    """Return a p-value to 4 significant digits, or None where one of the two has no score."""
    return None if np.isnan([value, *shown]).any() else float(f"{value:.4g}")


# The file, kept up to date -------------------------------------------------------------------------------------------


def update(folder: Path, results: Sequence[Result], data: Mapping[str, Data], find: Find) -> None:
    """Bring the file in a folder up to date with its results, as far as data and predictions are at hand.

    Raise StorageError where the file cannot be written.
    """
    systems: dict[str, dict[str, ResultNode]] = {}
    for result in results:
        named = systems.setdefault(result.sha256, {})
        named.update({node.id: node for node in result.tree.nodes() if node.name})
    try:
        old = Significance.read(folder)
    except RegistryError:
        old = Significance()  # it is made again
    new = Significance(suites={
        sha256: _renewed(old.suites.get(sha256, Evidence()), sha256, named, data, find)
        for sha256, named in systems.items()})
    if not (folder / SIGNIFICANCE).exists() or new != old:
        write_bytes(folder / SIGNIFICANCE, new.to_json())


def _renewed(old: Evidence, sha256: str, systems: Mapping[str, ResultNode], datas: Mapping[str, Data],
             find: Find) -> Evidence:
    """Return what is still true of the old evidence, with what can be added; data are asked for where they are needed.
    """
    tested = sorted(sorted(systems, key=lambda id: _rank(systems[id]))[:MOST])
    kept = old.only({id: node.shown() for id, node in systems.items()}, tested)
    lacking = [pair for pair in combinations(tested, 2) if _pair(*pair) not in kept.pairs]
    alone = systems.keys() - kept.systems.keys()
    if not (lacking or alone) or sha256 not in datas:
        return kept
    data = datas[sha256]
    wanted = {id: find(id) for id in sorted({*alone, *(id for pair in lacking for id in pair)})}
    found = {id: ScoredSystem(said, systems[id].shown()) for id, said in wanted.items()
             if said and score(said, data) == systems[id].scores}
    if not (alone & found.keys()) and not any(one in found and other in found for one, other in lacking):
        return kept
    new = evidence(data, sha256, found, systems.keys() - set(tested))
    return Evidence(columns=new.columns, systems=kept.systems | new.systems, pairs=kept.pairs | new.pairs)


def _rank(node: ResultNode) -> tuple[float, str]:
    """Return what systems are sorted by: the best on dev first, those without an overall last."""
    overall = node.shown().get("dev", {}).get(OVERALL)
    return 2.0 if overall is None else -overall, node.id


@dataclass(frozen=True)
class PredictionsCache:
    """Predictions of published systems that are no runs of their own, such as ensembles; all can be made again."""

    folder: Path

    def find(self, id: str) -> Predictions | None:
        """Return what is kept of a system, or None."""
        with contextlib.suppress(MtrunError):
            return Predictions.read(self._path(id))
        return None

    def has(self, id: str) -> bool:
        """Tell whether something is kept of a system."""
        return self._path(id).exists()

    def keep(self, found: Mapping[str, Predictions], ids: Collection[str]) -> None:
        """Keep what is new and remove what is of none of `ids`. Raise StorageError."""
        for path in self.folder.glob("*.safetensors"):
            if path.stem not in ids:
                remove(path)
        for id, said in found.items():
            data, path = said.to_bytes(), self._path(id)
            if not path.exists() or path.read_bytes() != data:
                write_bytes(path, data)

    def _path(self, id: str) -> Path:
        return self.folder / f"{id}.safetensors"
