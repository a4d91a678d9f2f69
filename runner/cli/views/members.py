"""Render the contributions of the members of an ensemble as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from ...errors import clean
from ...results.members.shapley import Contribution, Contributions, Estimate, SmallerEnsemble
from ...tasks.metrics import OVERALL

SHOWN = 15
"""Maximal number of models whose pairs are printed; JSON has all pairs."""


def text(result: Contributions, points: float | None) -> str:
    """Render contributions as text; `points` is the loss of overall allowed to a smaller ensemble, in hundredths."""
    subsets, whole = result.subsets, result.whole
    lines = [f"{subsets.root.title}: {subsets.root.what}, {subsets.split} overall {whole.value:.3f} "
             f"({whole.low:.3f} to {whole.high:.3f})", "", *_members(result), "", *_legend(result), "", *_pairs(result)]
    lines += ["", *_smaller(result, points)] if points is not None else []
    return "\n".join(clean(line).rstrip() for line in lines)


def _members(result: Contributions) -> list[str]:
    """Return a table of the members with their contributions, highest Shapley value first."""
    titles = [result.subsets.data.tasks[name].title for name in result.members[0].by_task]
    ranked = sorted(enumerate(result.members, 1), key=lambda pair: -round(pair[1].shapley.value, 9))
    rows = [[f"{number:2} {member.player.title}", f"{member.alone:.3f}", _estimate(member.left_out),
             _estimate(member.shapley), *map(_point, member.by_task.values()), _rate(member)]
            for number, member in ranked]
    return _table(rows, ["   member", "alone", "left out", "Shapley value", *titles, "per s"], "l")


def _table(rows: Sequence[Sequence[str]], headers: Sequence[str], sides: str) -> list[str]:
    """Return the lines of a table; `sides` aligns its first columns, l or r, and the others are aligned right."""
    from tabulate import tabulate  # here, since not every command shows a table

    align = [{"l": "left", "r": "right"}[side] for side in sides.ljust(len(headers), "r")]
    return tabulate(rows, headers, disable_numparse=True, colalign=align).splitlines()


def _estimate(estimate: Estimate) -> str:
    """Format an estimate and its interval in points."""
    low, high = (f"{round(100 * end, 1) + 0.0:.1f}" for end in (estimate.low, estimate.high))
    return f"{_point(estimate.value)} [{low}, {high}]"


def _point(value: float) -> str:
    """Format a score difference in points."""
    return f"{round(100 * value, 1) + 0.0:+.1f}"


def _rate(member: Contribution) -> str:
    rate = per_second(member)
    return "—" if rate is None else _point(rate)


def per_second(member: Contribution) -> float | None:
    """Return the Shapley value divided by the seconds for 1,000 sentences; None where these are unknown."""
    return member.shapley.value / member.inference if member.inference else None


def _legend(result: Contributions) -> Iterator[str]:
    """Yield lines that explain the columns."""
    yield "In points, hundredths of the overall (of its own metric under a task), with 95 % bootstrap intervals."
    yield "left out: what the whole loses without the member.  per s: Shapley value by seconds for 1,000 sentences."
    over = f"all {result.coalitions:,} coalitions" if result.is_exact else \
        f"random orders, {result.coalitions:,} coalitions; standard error {100 * result.sampling_error:.2f} or less"
    yield f"Shapley value: mean gain over all orders of joining ({over});"
    yield f"  with {result.nothing:.3f}, for always saying the most frequent label, they add up to the whole."
    if result.subsets.split == "dev":
        yield "Scores are on dev, where members and weights may have been chosen."


def _pairs(result: Contributions) -> Iterator[str]:
    """Yield the matrix of disagreement and error correlation of pairs of models, or a note where it is too large."""
    ids = list(result.subsets.leaves)
    if not 1 < len(ids) <= SHOWN:
        yield f"{len(result.agreements):,} pairs of models: --json has them" if len(ids) > 1 else "There are no pairs."
        return
    numbers = {id: next(n for n, w in enumerate(result.members, 1) if w.player.id == id) for id in ids}
    rows = [[f"{numbers[id]:2}", *(_pair_cell(result, ids, row, column) for column in range(len(ids)))]
            for row, id in enumerate(ids)]
    yield "Of each two models: disagreement in % (upper right), correlation of errors (lower left)."
    yield from _table(rows, ["", *(str(numbers[id]) for id in ids)], "")


def _pair_cell(result: Contributions, ids: Sequence[str], row: int, column: int) -> str:
    """Format one cell of the matrix of pairs."""
    if row == column:
        return "·"
    pair = result.agreements[ids[min(row, column)], ids[max(row, column)]]
    value = (pair.disagreement if row < column else pair.errors).get(OVERALL)
    return "—" if value is None else f"{100 * value:.0f}" if row < column else f"{value:.2f}"


def _smaller(result: Contributions, points: float) -> Iterator[str]:
    """Yield the best ensemble of each smaller size, and the smallest one within `points` of the whole."""
    step, subsets = result.smallest(points), result.subsets
    how = "Best tree" if result.is_exact else "Tree after leaving out the least useful, one by one,"
    yield f"{how} of each number of members, and who is left out:"
    rows = [[f"{'→ ' * (s == step)}{s.coalition.bit_count()}", f"{s.score:.3f}", _point(s.score - result.whole.value),
             _left_out(result, s)] for s in result.steps]
    yield from _table(rows, ["members", "overall", "points", "left out"], "rrrl")
    yield ""
    models = f"{len(subsets.models(step.coalition))} of {len(subsets.leaves)} models"
    yield f"The smallest within {points:g} points has {models}:"
    yield from (f"{'   ' * depth}{role and f'{role}: '}{title}" for depth, role, title in subsets.tree(step.coalition))


def _left_out(result: Contributions, step: SmallerEnsemble) -> str:
    """Return the numbers of the members that a smaller ensemble lacks."""
    return " ".join(str(n) for n in range(1, len(result.members) + 1) if not step.coalition >> (n - 1) & 1)


def json_line(result: Contributions, points: float | None) -> str:
    """Render contributions as one line of JSON."""
    subsets = result.subsets
    members = [{"name": w.player.title, "id": w.player.id, "alone": w.alone, "left_out": asdict(w.left_out),
                "shapley": asdict(w.shapley), "by_task": w.by_task, "inference": w.inference,
                "per_second": per_second(w)} for w in result.members]
    pairs = [{"ids": ids, **asdict(pair)} for ids, pair in result.agreements.items()]
    out: dict[str, Any] = {
        "v": 1, "name": subsets.root.name, "id": subsets.root.id, "split": subsets.split,
        "overall": asdict(result.whole), "nothing": result.nothing, "exact": result.is_exact,
        "coalitions": result.coalitions, "sampling_error": result.sampling_error, "members": members, "pairs": pairs}
    if points is not None:
        out["steps"] = [_smaller_json(result, step) for step in result.steps]
        out["smallest"] = {"points": points, **_smaller_json(result, result.smallest(points))}
    return json.dumps(out)


def _smaller_json(result: Contributions, step: SmallerEnsemble) -> dict[str, Any]:
    """Return a smaller ensemble as plain JSON."""
    members = [p.title for i, p in enumerate(result.subsets.players) if step.coalition >> i & 1]
    return {"overall": step.score, "members": members}
