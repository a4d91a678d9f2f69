"""What the members of an ensemble are worth, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from ...errors import clean
from ...results.members.shapley import Contribution, Contributions, Estimate, SmallerEnsemble
from ...tasks.metrics import OVERALL

SHOWN = 15
"""Most models whose pairs are printed; JSON has them all."""


def text(found: Contributions, points: float | None) -> str:
    """Return it all for a person; `points` is how much worse a smaller tree may be, in hundredths of the overall."""
    grove, whole = found.grove, found.whole
    lines = [f"{grove.root.title}: {grove.root.what}, {grove.split} overall {whole.value:.3f} "
             f"({whole.low:.3f} to {whole.high:.3f})", "", *_worths(found), "", *_legend(found), "", *_pairs(found)]
    lines += ["", *_smaller(found, points)] if points is not None else []
    return "\n".join(clean(line).rstrip() for line in lines)


def _worths(found: Contributions) -> list[str]:
    """Return the members with their worth, the most valuable first."""
    titles = [found.grove.data.tasks[name].title for name in found.worths[0].by_task]
    ranked = sorted(enumerate(found.worths, 1), key=lambda pair: -round(pair[1].shapley.value, 9))
    rows = [[f"{number:2} {worth.player.title}", f"{worth.alone:.3f}", _estimate(worth.left_out),
             _estimate(worth.shapley), *map(_point, worth.by_task.values()), _rate(worth)]
            for number, worth in ranked]
    return _table(rows, ["   member", "alone", "left out", "Shapley value", *titles, "per s"], "l")


def _table(rows: Sequence[Sequence[str]], headers: Sequence[str], sides: str) -> list[str]:
    """Return a table; `sides` are those of its first columns, l or r, and the others are on the right."""
    from tabulate import tabulate  # here, since not every command shows a table

    align = [{"l": "left", "r": "right"}[side] for side in sides.ljust(len(headers), "r")]
    return tabulate(rows, headers, disable_numparse=True, colalign=align).splitlines()


def _estimate(estimate: Estimate) -> str:
    """Return a worth in points with its interval."""
    low, high = (f"{round(100 * end, 1) + 0.0:.1f}" for end in (estimate.low, estimate.high))
    return f"{_point(estimate.value)} [{low}, {high}]"


def _point(value: float) -> str:
    """Return a score's difference in points."""
    return f"{round(100 * value, 1) + 0.0:+.1f}"


def _rate(worth: Contribution) -> str:
    rate = per_second(worth)
    return "—" if rate is None else _point(rate)


def per_second(worth: Contribution) -> float | None:
    """Return a Shapley value by the seconds that 1,000 sentences take; None where these are not known."""
    return worth.shapley.value / worth.inference if worth.inference else None


def _legend(found: Contributions) -> Iterator[str]:
    """Yield what the columns mean."""
    yield "In points, hundredths of the overall (of its own metric under a task), with 95 % bootstrap intervals."
    yield "left out: what the whole loses without the member.  per s: Shapley value by seconds for 1,000 sentences."
    over = f"all {found.coalitions:,} coalitions" if found.is_exact else \
        f"random orders, {found.coalitions:,} coalitions; standard error {100 * found.sampling_error:.2f} or less"
    yield f"Shapley value: mean gain over all orders of joining ({over});"
    yield f"  with {found.nothing:.3f}, for always saying the most frequent label, they add up to the whole."
    if found.grove.split == "dev":
        yield "Scores are on dev, where members and weights may have been chosen."


def _pairs(found: Contributions) -> Iterator[str]:
    """Yield how alike the models are: one matrix, or only that it is too large."""
    ids = list(found.grove.leaves)
    if not 1 < len(ids) <= SHOWN:
        yield f"{len(found.agreements):,} pairs of models: --json has them" if len(ids) > 1 else "There are no pairs."
        return
    numbers = {id: next(n for n, w in enumerate(found.worths, 1) if w.player.id == id) for id in ids}
    rows = [[f"{numbers[one]:2}", *(_alike(found, ids, row, column) for column in range(len(ids)))]
            for row, one in enumerate(ids)]
    yield "Of each two models: disagreement in % (upper right), correlation of errors (lower left)."
    yield from _table(rows, ["", *(str(numbers[id]) for id in ids)], "")


def _alike(found: Contributions, ids: Sequence[str], row: int, column: int) -> str:
    """Return one cell of the matrix of pairs."""
    if row == column:
        return "·"
    pair = found.agreements[ids[min(row, column)], ids[max(row, column)]]
    value = (pair.disagreement if row < column else pair.errors).get(OVERALL)
    return "—" if value is None else f"{100 * value:.0f}" if row < column else f"{value:.2f}"


def _smaller(found: Contributions, points: float) -> Iterator[str]:
    """Yield the best trees of fewer members, and the smallest one that is good enough."""
    step, grove = found.smallest(points), found.grove
    how = "Best tree" if found.is_exact else "Tree after leaving out the least useful, one by one,"
    yield f"{how} of each number of members, and who is left out:"
    rows = [[f"{'→ ' * (s == step)}{s.coalition.bit_count()}", f"{s.score:.3f}", _point(s.score - found.whole.value),
             _left_out(found, s)] for s in found.steps]
    yield from _table(rows, ["members", "overall", "points", "left out"], "rrrl")
    yield ""
    models = f"{len(grove.models(step.coalition))} of {len(grove.leaves)} models"
    yield f"The smallest within {points:g} points has {models}:"
    yield from (f"{'   ' * depth}{role and f'{role}: '}{title}" for depth, role, title in grove.tree(step.coalition))


def _left_out(found: Contributions, step: SmallerEnsemble) -> str:
    """Return the numbers of the members that a smaller tree lacks."""
    return " ".join(str(n) for n in range(1, len(found.worths) + 1) if not step.coalition >> (n - 1) & 1)


def line(found: Contributions, points: float | None) -> str:
    """Return it all as one line of JSON."""
    grove = found.grove
    worths = [{"name": w.player.title, "id": w.player.id, "alone": w.alone, "left_out": asdict(w.left_out),
               "shapley": asdict(w.shapley), "by_task": w.by_task, "inference": w.inference,
               "per_second": per_second(w)} for w in found.worths]
    pairs = [{"ids": ids, **asdict(pair)} for ids, pair in found.agreements.items()]
    out: dict[str, Any] = {
        "v": 1, "name": grove.root.name, "id": grove.root.id, "split": grove.split, "overall": asdict(found.whole),
        "nothing": found.nothing, "exact": found.is_exact, "coalitions": found.coalitions,
        "sampling_error": found.sampling_error, "members": worths, "pairs": pairs}
    if points is not None:
        out["steps"] = [_told(found, step) for step in found.steps]
        out["smallest"] = {"points": points, **_told(found, found.smallest(points))}
    return json.dumps(out)


def _told(found: Contributions, step: SmallerEnsemble) -> dict[str, Any]:
    """Return a smaller tree as JSON."""
    members = [p.title for i, p in enumerate(found.grove.players) if step.coalition >> i & 1]
    return {"overall": step.score, "members": members}
