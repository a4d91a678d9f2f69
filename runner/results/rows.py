"""Rows of a leaderboard: the named nodes of many results, merged by id, and their means over seeds."""

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
    """One named node of a leaderboard, with all of its names, shortest first."""

    names: tuple[str, ...]
    id: str
    """Empty for a mean over seeds."""
    kind: str
    what: str
    scores: Scores
    """Scores of the node fitted on all of dev."""
    shown: Scores
    """Scores to show and rank by; on dev the honest ones, if available."""
    members: tuple[str, ...]
    """Titles of the direct members of an ensemble; only the chosen ones if a rule chose."""
    apparent: bool
    """Whether the shown dev scores are apparent."""
    leaves: dict[str, int | None]
    """Id -> number of parameters of each leaf below the node."""
    seeds: int = 1
    """Number of runs of which the scores are the mean."""
    sd: Scores = field(default_factory=dict)
    """Standard deviation over the seeds."""

    @property
    def parameters(self) -> int | None:
        """Total number of parameters of all leaves, or None if one is unknown."""
        counts = [count for count in self.leaves.values() if count is not None]
        return sum(counts) if counts and len(counts) == len(self.leaves) else None

    def score(self, split: str, column: str) -> float | None:
        """Return the score to show and rank by, or None."""
        return self.shown.get(split, {}).get(column)


def leaderboard(results: Sequence[Result]) -> list[Row]:
    """Return the named nodes of results on one suite, each once, sorted by shown dev overall and then by name.

    A name shared by several nodes, as after a change of the spec, is followed by the id of the node.

    Raise RegistryError if two results have different scores of one node.
    """
    nodes: dict[str, ResultNode] = {}
    names: dict[str, set[str]] = {}
    for node in (node for result in results for node in result.tree.nodes()):
        other = nodes.setdefault(node.id, node)
        if (other.scores, other.honest) != (node.scores, node.honest) and other.shown() != node.shown():
            raise RegistryError(Problem(f"two results give `{node.name or node.what}` ({node.id}) different scores",
                                        hint="build the specs that contain it again, from one registry"))
        names.setdefault(node.id, set()).update({node.name} - {""})
    shared = {name for name, count in Counter(chain.from_iterable(names.values())).items() if count > 1}
    titles = {key: tuple(sorted((f"{name} ({key})" if name in shared else name for name in own),
                                key=lambda name: (len(name), name))) for key, own in names.items()}
    rows = [Row(titles[key], key, node.kind, node.what, node.scores, node.shown(), _members(node, titles),
                node.is_apparent() and node.honest is None,
                {leaf.id: leaf.parameters for leaf in node.nodes() if leaf.kind == "leaf"})
            for key, node in nodes.items() if titles[key]]
    return sorted(rows, key=lambda row: rank(row, "dev", OVERALL))


def rank(row: Row, split: str, column: str, sign: int = 1) -> tuple[bool, float, tuple[str, ...]]:
    """Return the sort key of a row: best score first, rows without the score last; `sign` is that of the metric."""
    score = row.score(split, column)
    return score is None, -sign * (score or 0.0), row.names


def _members(node: ResultNode, titles: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return the titles of the members with their roles; an unnamed member is described with its own members."""
    shown = range(len(node.members)) if node.chosen is None else node.chosen
    texts = []
    for position in shown:
        member = node.members[position]
        inner = ", ".join(_members(member, titles))
        text = titles[member.id][0] if titles[member.id] else f"{member.what}{inner and f' ({inner})'}"
        role = node.roles[position] if node.roles else ""
        texts.append(f"{role}: {text}" if role else text)
    return tuple(texts)


def over_seeds(rows: Iterable[Row]) -> list[Row]:
    """Return mean and standard deviation of each group of rows whose names differ only in the seed of a sweep."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        for name in row.names:
            spec, _, labels = name.partition("@")
            others = [label for label in labels.split(",") if not label.startswith("seed=")]
            if ",".join(others) != labels:
                groups.setdefault("@".join([spec, *filter(None, [",".join(others)])]), []).append(row)
    return [_mean(base, group) for base, group in groups.items() if len(group) > 1]


def _mean(base: str, group: Sequence[Row]) -> Row:
    """Return the row of the mean over a group."""
    first, n = group[0], len(group)
    scores, shown, sd = (_over(group_scores, how) for group_scores, how in (
        ([row.scores for row in group], statistics.fmean), ([row.shown for row in group], statistics.fmean),
        ([row.shown for row in group], statistics.stdev)))
    return Row((f"{base} over {n} seeds",), "", first.kind, first.what, scores, shown, (),
               any(row.apparent for row in group), first.leaves, n, sd)


def _over(group: Sequence[Scores], how: Callable[[list[float]], float]) -> Scores:
    """Aggregate the scores of several runs with `how`; None if one lacks the score."""
    return {split: {column: how(values) if None not in (raw := [run.get(split, {}).get(column) for run in group])
                    and (values := [x for x in raw if x is not None]) else None for column in scores}
            for split, scores in group[0].items()}


def selected(rows: Sequence[Row], patterns: str, must: bool = False) -> list[Row]:
    """Return the rows with a name that matches one of the patterns, such as `ensemble? sum-lr@*`.

    If `must` is set, raise UsageError for a pattern that matches no row.
    """
    matches: dict[str, Row] = {}
    for pattern in patterns.split():
        rows_of_pattern = [row for row in rows if any(fnmatchcase(name, pattern) for name in row.names)]
        if must and not rows_of_pattern:
            hint = did_you_mean(pattern, {name for row in rows for name in row.names})
            raise UsageError(f"no system is called `{pattern}`. {hint}".rstrip())
        matches |= {row.id: row for row in rows_of_pattern}
    return [row for row in rows if row.id in matches]


def by_suite(results: Iterable[Result]) -> dict[tuple[str, str], list[Result]]:
    """Group results by name and content hash of their suite, sorted by these."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.suite, result.sha256), []).append(result)
    return dict(sorted(groups.items()))
