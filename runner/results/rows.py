"""Tables: many results as one leaderboard."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import chain

from ..errors import Problem, RegistryError, UsageError, did_you_mean
from ..tasks.metrics import OVERALL, Scores
from .result import Result, ResultNode


@dataclass(frozen=True)
class Row:
    """One named node of a leaderboard; a node with several names has them all, the shortest first."""

    names: tuple[str, ...]
    id: str
    """Empty for the mean over seeds."""
    kind: str
    what: str
    scores: Scores
    """Of what was fitted on all of dev."""
    shown: Scores
    """What is shown and ranked by: on dev honest, where something was chosen and that could be had."""
    members: tuple[str, ...]
    """Direct members of an ensemble, only the chosen ones where a rule chose."""
    apparent: bool
    """Whether the dev scores that are shown are on data that was used to choose something."""
    leaves: dict[str, int | None]
    """Id -> parameters of each model that the node is made of."""
    seeds: int = 1
    """Runs of which the scores are the mean."""
    sd: Scores = field(default_factory=dict)
    """Standard deviation over the seeds."""

    @property
    def parameters(self) -> int | None:
        """Numbers in all models of the node together; None where one does not say."""
        counts = [count for count in self.leaves.values() if count is not None]
        return sum(counts) if counts and len(counts) == len(self.leaves) else None

    def score(self, split: str, column: str) -> float | None:
        """Return the score that is shown and ranked by, or None."""
        return self.shown.get(split, {}).get(column)


def leaderboard(results: Sequence[Result]) -> list[Row]:
    """Return the named nodes of trees scored on one suite, each once, by honest dev overall and then by name.

    A name that several nodes have, as after a spec was changed, is followed by the node's id.

    Raise RegistryError where two results give one node different scores.
    """
    nodes: dict[str, ResultNode] = {}
    names: dict[str, set[str]] = {}
    for node in (node for result in results for node in result.tree.nodes()):
        if nodes.setdefault(node.id, node).shown() != node.shown():
            raise RegistryError(Problem(f"two results give `{node.name or node.what}` ({node.id}) different scores",
                                        hint="build the specs that contain it again, from one registry"))
        names.setdefault(node.id, set()).update({node.name} - {""})
    shared = {name for name, count in Counter(chain.from_iterable(names.values())).items() if count > 1}
    called = {key: tuple(sorted((f"{name} ({key})" if name in shared else name for name in found),
                                key=lambda name: (len(name), name))) for key, found in names.items()}
    rows = [Row(called[key], key, node.kind, node.what, node.scores, node.shown(), _members(node, called),
                node.is_apparent() and node.honest is None,
                {leaf.id: leaf.parameters for leaf in node.nodes() if leaf.kind == "leaf"})
            for key, node in nodes.items() if called[key]]
    return sorted(rows, key=lambda row: rank(row, "dev", OVERALL))


def rank(row: Row, split: str, column: str) -> tuple[bool, float, tuple[str, ...]]:
    """Return what rows are sorted by: those without the score come last."""
    score = row.score(split, column)
    return score is None, -(score or 0.0), row.names


def _members(node: ResultNode, called: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return what the members are called, with their roles; an unnamed one is described, its own members after it."""
    shown = range(len(node.members)) if node.chosen is None else node.chosen
    texts = []
    for position in shown:
        member = node.members[position]
        inner = ", ".join(_members(member, called))
        text = called[member.id][0] if called[member.id] else f"{member.what}{inner and f' ({inner})'}"
        role = node.roles[position] if node.roles else ""
        texts.append(f"{role}: {text}" if role else text)
    return tuple(texts)


def over_seeds(rows: Iterable[Row]) -> list[Row]:
    """Return the mean of each group of rows whose names differ in the seed of a sweep alone, with its deviation."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        for name in row.names:
            spec, _, labels = name.partition("@")
            others = [label for label in labels.split(",") if not label.startswith("seed=")]
            if ",".join(others) != labels:
                groups.setdefault("@".join([spec, *filter(None, [",".join(others)])]), []).append(row)
    return [_mean(base, group) for base, group in groups.items() if len(group) > 1]


def _mean(base: str, group: Sequence[Row]) -> Row:
    """Return several runs as one row."""
    first, n = group[0], len(group)
    scores, shown, sd = (_over(found, how) for found, how in (
        ([row.scores for row in group], statistics.fmean), ([row.shown for row in group], statistics.fmean),
        ([row.shown for row in group], statistics.stdev)))
    return Row((f"{base} over {n} seeds",), "", first.kind, first.what, scores, shown, (),
               any(row.apparent for row in group), first.leaves, n, sd)


def _over(group: Sequence[Scores], how: Callable[[list[float]], float]) -> Scores:
    """Return what becomes of the scores of several runs, None where one lacks a score."""
    return {split: {column: how(found) if None not in (each := [run.get(split, {}).get(column) for run in group])
                    and (found := [x for x in each if x is not None]) else None for column in scores}
            for split, scores in group[0].items()}


def selected(rows: Sequence[Row], patterns: str, must: bool = False) -> list[Row]:
    """Return the rows of which a name is like one of some patterns, such as `ensemble? sum-lr@*`.

    Raise UsageError, if so told, for a pattern that is like the name of no row.
    """
    rows_by_name: dict[str, Row] = {}
    for pattern in patterns.split():
        like = [row for row in rows if any(fnmatchcase(name, pattern) for name in row.names)]
        if must and not like:
            hint = did_you_mean(pattern, {name for row in rows for name in row.names})
            raise UsageError(f"no system is called `{pattern}`. {hint}".rstrip())
        rows_by_name |= {row.id: row for row in like}
    return [row for row in rows if row.id in rows_by_name]


def by_suite(results: Iterable[Result]) -> dict[tuple[str, str], list[Result]]:
    """Return results by name and content hash of the suite that they were scored on, in this order."""
    found: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        found.setdefault((result.suite, result.sha256), []).append(result)
    return dict(sorted(found.items()))
