"""Significance: confidence intervals of published scores, and p-values of all pairs of published systems.

`results/<profile>/significance.json` is computed from the predictions of a build and from those stored by earlier
builds, so that a table needs neither data nor predictions. It is byte-stable: an entry depends only on the suite and on
the systems named in it, not on when or with which others it was computed.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from ..errors import MtrunError, Place, Problem, RegistryError
from ..files import read_cache, remove, reported, write_bytes, write_cache
from ..files import sha256 as file_hash
from ..lazy import deferred
from ..part import StrictRecord
from ..tasks import bootstrap
from ..tasks.data import Data, Examples, Task
from ..tasks.metrics import OVERALL, Measure, Scores, counted, measures, score, score_split, weighted
from ..tasks.predictions import Predictions
from .result import SIGNIFICANCE, Result, ResultNode

with deferred("numpy"):
    import numpy as np

SPLITS = ("dev", "test")

MOST = 100
"""Maximal number of systems of a suite, the best on dev, that are tested in pairs; the pairs grow quadratically."""

Find = Callable[[str], Predictions | None]
"""Function from the id of a node to its Predictions, or None if they are not available."""

_P = Annotated[float, Field(ge=0, le=1)]

_Score = tuple[float, float, float] | None


class Evidence(StrictRecord):
    """Intervals and p-values of the systems of one suite; each tuple is in the order of `columns`."""

    columns: tuple[str, ...] = ()
    """Columns of the suite's scores (`metrics.measures`), and overall."""
    systems: dict[str, dict[str, tuple[_Score, ...]]] = Field(default_factory=dict)
    """Id -> split -> (shown score, low, high) of each column."""
    pairs: dict[str, dict[str, tuple[_P | None, ...]]] = Field(default_factory=dict)
    """Two sorted ids -> split -> p-value of each column."""

    @model_validator(mode="after")
    def _is_whole(self) -> Evidence:
        entries: list[Mapping[str, Sequence[object]]] = [*self.systems.values(), *self.pairs.values()]
        if any(len(values) != len(self.columns) for by_split in entries for values in by_split.values()):
            raise ValueError("there are not as many values as columns")
        return self

    def interval(self, id: str, split: str, column: str, score: float | None) -> tuple[float, float] | None:
        """Return the ends of the interval of a score, or None if the score differs or its interval is unknown."""
        entry = self._at(self.systems.get(id, {}), split, column)
        return (entry[1], entry[2]) if entry and entry[0] == score else None

    def p(self, first: str, second: str, split: str, column: str) -> float | None:
        """Return the p-value of the difference between two systems, or None if it is unknown."""
        value = self._at(self.pairs.get(_pair(first, second), {}), split, column)
        return None if value is None else float(value)

    def only(self, systems: Mapping[str, Scores], tested: Collection[str]) -> Evidence:
        """Return the evidence of systems whose shown scores are unchanged, and of their pairs within `tested`."""
        kept = {id: by_split for id, by_split in self.systems.items() if id in systems and all(
            [at and at[0] for at in by_column] == [systems[id].get(split, {}).get(c) for c in self.columns]
            for split, by_column in by_split.items())}
        pairs = {pair: p for pair, p in self.pairs.items() if kept.keys() & set(tested) >= set(pair.split())}
        return Evidence(columns=self.columns, systems=kept, pairs=pairs)

    def _at(self, by_split: Mapping[str, Sequence[Any]], split: str, column: str) -> Any:
        values = by_split.get(split)
        return values[self.columns.index(column)] if values and column in self.columns else None


class Significance(StrictRecord):
    """Content of the file of one profile."""

    format: Literal[1] = 1
    suites: dict[str, Evidence] = Field(default_factory=dict)
    """Evidence by the hash of the suite."""

    @classmethod
    def read(cls, folder: Path) -> Significance:
        """Read the file in a folder of results; empty if there is none. Raise RegistryError if it is damaged."""
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
        """Serialize to JSON with one line for each system and pair."""
        suites = []
        for sha256, evidence in sorted(self.suites.items()):
            parts = [f'  "columns": {json.dumps(evidence.columns)}']
            for name, entries in (("systems", evidence.systems), ("pairs", evidence.pairs)):
                lines = [f'   {json.dumps(key)}: {json.dumps(entry)}' for key, entry in sorted(entries.items())]
                parts.append(f'  "{name}": {{\n' + ",\n".join(lines) + "\n  }")
            suites.append(f' "{sha256}": {{\n' + ",\n".join(parts) + "\n }")
        return ('{\n"format": 1,\n"suites": {\n' + ",\n".join(suites) + "\n}\n}\n").encode()


def _pair(first: str, second: str) -> str:
    """Return the key of a pair of ids."""
    return f"{min(first, second)} {max(first, second)}"


@dataclass(frozen=True)
class ScoredSystem:
    """A published node: its Predictions and its shown scores (honest on dev)."""

    predictions: Predictions
    shown: Scores


@dataclass(frozen=True)
class Measured:
    """Shown scores [S] of S systems on one split, ends [S] of their intervals, and p-values [T, T] of the first T.

    All by column; nan where a system has no score.
    """

    shown: dict[str, np.ndarray]
    ends: dict[str, tuple[np.ndarray, np.ndarray]]
    p: dict[str, np.ndarray]


def measured(data: Data, sha256: str, split: str, systems: Sequence[ScoredSystem], tested: int) -> Measured:
    """Compute intervals and p-values of some systems; `sha256` is the hash of `data`, `tested` is T."""
    columns = measures(data.tasks)
    shown = _listed([system.shown.get(split, {}) for system in systems], (*columns, OVERALL))
    points = _listed([score_split(system.predictions, data, split) for system in systems], (*columns, OVERALL))
    draws: dict[str, np.ndarray] = {}
    ends: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    p: dict[str, np.ndarray] = {}
    for column, measure in columns.items():
        draws[column] = np.full((bootstrap.RESAMPLES, len(systems)), np.nan)
        p[column] = np.full((tested, tested), np.nan)
        available = np.flatnonzero(np.isfinite(points[column])).tolist()
        if available:
            observed, labels = _outcomes(data, measure, split, [systems[i].predictions for i in available])
            # All metrics of a task have the same draws.
            resamples = bootstrap.resampled(measure.task, measure.metric, observed, labels,
                                            bootstrap.seed(sha256, split, measure.name))
            draws[column][:, available] = resamples
            both = [i for i in available if i < tested]
            p[column][np.ix_(both, both)] = (
                bootstrap.mcnemar(observed[:, : len(both)], shown[column][both]) if measure.metric.name == "accuracy"
                else bootstrap.paired(shown[column][both], points[column][both], resamples[:, : len(both)]))
        examples = data.splits[measure.name].get(split)
        ends[column] = _ends(draws[column], points[column], shown[column], measure, examples)
    draws[OVERALL] = weighted(draws, data.tasks)
    p[OVERALL] = bootstrap.paired(shown[OVERALL][:tested], points[OVERALL][:tested], draws[OVERALL][:, :tested])
    ends[OVERALL] = _ends_of_overall(draws[OVERALL], shown[OVERALL] - points[OVERALL], ends, data.tasks)
    return Measured(shown, ends, p)


def _listed(systems: Sequence[Mapping[str, float | None]], columns: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the scores [S] by column, with nan for None."""
    return {column: np.array([np.nan if (value := scores.get(column)) is None else value for scores in systems])
            for column in columns}


def _outcomes(data: Data, measure: Measure, split: str,
              systems: Sequence[Predictions]) -> tuple[np.ndarray, np.ndarray]:
    """Return the outcomes [n, S] or [n, S, d] of one column, predicted by all systems, and its labels."""
    labels = data.splits[measure.name][split].labels
    scores = [system.find(data, split, measure.name) for system in systems]
    assert labels is not None
    return np.stack([measure.metric.outcomes(measure.task, s, labels) for s in scores if s is not None], axis=1), labels


def _ends(draws: np.ndarray, points: np.ndarray, shown: np.ndarray, measure: Measure,
          examples: Examples | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends [S] of the intervals of draws [b, S] of values `points`, shifted to the shown scores [S].

    Where all draws are perfect, or all worthless, they say nothing; the other end is then that of Wilson's interval.
    """
    metric = measure.metric
    low, high = (np.clip(end + shown - points, metric.low, metric.high) for end in bootstrap.interval(draws))
    whole = 0 if examples is None or examples.labels is None else metric.whole(measure.task, examples.labels)
    if whole:
        surely = bootstrap.wilson(whole)
        low = np.where((draws == 1).all(axis=0), np.minimum(low, surely), low)
        high = np.where((draws == 0).all(axis=0), np.maximum(high, 1 - surely), high)
    return low, high


def _ends_of_overall(draws: np.ndarray, optimism: np.ndarray, ends: Mapping[str, tuple[np.ndarray, np.ndarray]],
                     tasks: Mapping[str, Task]) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends [S] of the overall's intervals; where the draws [b, S] are all alike, of those of the tasks."""
    low, high = (end + optimism for end in bootstrap.interval(draws))
    alike = (draws == draws[:1]).all(axis=0)
    known = counted(tasks)
    of_tasks = [weighted({name: ends[name][side] for name in known}, tasks) for side in (0, 1)]
    return np.where(alike, np.minimum(*of_tasks), low), np.minimum(1, np.where(alike, np.maximum(*of_tasks), high))


def evidence(data: Data, sha256: str, systems: Mapping[str, ScoredSystem], untested: Collection[str] = ()) -> Evidence:
    """Compute the intervals of systems by id, and the p-values of all pairs without `untested` systems."""
    ids = sorted(systems, key=lambda id: (id in untested, id))
    tested = [id for id in ids if id not in untested]
    result = Evidence(columns=(*measures(data.tasks), OVERALL), systems={id: {} for id in ids},
                    pairs={_pair(*pair): {} for pair in combinations(tested, 2)})
    for split in SPLITS:
        measurement = measured(data, sha256, split, [systems[id] for id in ids], len(tested))
        if all(np.isnan(scores).all() for scores in measurement.shown.values()):
            continue
        for i, id in enumerate(ids):
            result.systems[id][split] = tuple(_score(measurement, column, i) for column in result.columns)
        for i, j in combinations(range(len(tested)), 2):
            result.pairs[_pair(ids[i], ids[j])][split] = tuple(_p(measurement.p[c][i, j], measurement.shown[c][[i, j]])
                                                             for c in result.columns)
    return result


def _score(measurement: Measured, column: str, i: int) -> _Score:
    """Return the score of one system with its interval, rounded to 4 digits, or None."""
    value, low, high = (float(values[i]) for values in (measurement.shown[column], *measurement.ends[column]))
    return None if np.isnan([value, low]).any() else (value, round(low, 4) + 0.0, round(high, 4) + 0.0)


def _p(value: float, shown: np.ndarray) -> float | None:
    """Return a p-value to 4 significant digits, or None if one of the two has no score."""
    return None if np.isnan([value, *shown]).any() else float(f"{value:.4g}")


# Updating the file ---------------------------------------------------------------------------------------------------


def update(folder: Path, results: Sequence[Result], data: Mapping[str, Data], find: Find, cache: Path) -> None:
    """Update the file in a folder to its results, as far as data and predictions are available.

    `cache` is where the hash of the file is kept: a file that was changed since is computed again. Raise StorageError
    if the file cannot be written.
    """
    systems: dict[str, dict[str, ResultNode]] = {}
    for result in results:
        nodes = systems.setdefault(result.sha256, {})
        nodes.update({node.id: node for node in result.tree.nodes() if node.name})
    path, is_ours = folder / SIGNIFICANCE, False
    try:
        is_ours = path.exists() and read_cache(cache) in (None, file_hash(path).encode())
        old = Significance.read(folder) if is_ours else Significance()
    except RegistryError:
        old = Significance()  # the damaged file is replaced
    new = Significance(suites={
        sha256: _updated(old.suites.get(sha256, Evidence()), sha256, nodes, data, find)
        for sha256, nodes in systems.items()})
    if new != old or not is_ours:
        write_bytes(path, new.to_json())
    write_cache(cache, file_hash(path).encode())


def _updated(old: Evidence, sha256: str, systems: Mapping[str, ResultNode], datas: Mapping[str, Data],
             find: Find) -> Evidence:
    """Return the old evidence that is still valid, with the missing entries that can be computed.

    `datas` is accessed only if something is missing, since that loads the data.
    """
    tested = sorted(sorted(systems, key=lambda id: _rank(systems[id]))[:MOST])
    kept = old.only({id: node.shown() for id, node in systems.items()}, tested)
    missing = [pair for pair in combinations(tested, 2) if _pair(*pair) not in kept.pairs]
    unknown = systems.keys() - kept.systems.keys()
    if not (missing or unknown) or sha256 not in datas:
        return kept
    data = datas[sha256]
    candidates = {id: find(id) for id in sorted({*unknown, *(id for pair in missing for id in pair)})}
    available = {id: ScoredSystem(predictions, systems[id].shown()) for id, predictions in candidates.items()
             if predictions and score(predictions, data) == systems[id].scores}
    if not (unknown & available.keys()) and not any(one in available and other in available for one, other in missing):
        return kept
    new = evidence(data, sha256, available, systems.keys() - set(tested))
    return Evidence(columns=new.columns, systems=kept.systems | new.systems, pairs=kept.pairs | new.pairs)


def _rank(node: ResultNode) -> tuple[float, str]:
    """Return the sort key of a system: best on dev first, without an overall last."""
    overall = node.shown().get("dev", {}).get(OVERALL)
    return 2.0 if overall is None else -overall, node.id


@dataclass(frozen=True)
class PredictionsCache:
    """Cache of Predictions of published systems that are not runs, such as ensembles."""

    folder: Path

    def find(self, id: str) -> Predictions | None:
        """Return the cached Predictions of a system, or None."""
        with contextlib.suppress(MtrunError):
            return Predictions.read(self._path(id))
        return None

    def has(self, id: str) -> bool:
        """Return whether Predictions of a system are cached."""
        return self._path(id).exists()

    def ids(self) -> set[str]:
        """Return the ids of the systems whose Predictions are cached."""
        return {path.stem for path in self.folder.glob("*.safetensors")}

    def keep(self, id: str, predictions: Predictions) -> None:
        """Store the Predictions of a system. Raise StorageError."""
        data, path = predictions.to_bytes(), self._path(id)
        with contextlib.suppress(FileNotFoundError):  # none yet, or another build has just deleted it
            if path.read_bytes() == data:
                return
        write_bytes(path, data)

    def remove(self, id: str) -> None:
        """Delete the Predictions of a system."""
        remove(self._path(id))

    def _path(self, id: str) -> Path:
        return self.folder / f"{id}.safetensors"
