"""Read published costs: seconds of training and of inference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..files import parse_json
from .result import COSTS, _is_cost


def costs(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the costs of each model in a folder of results by id; unknown and invalid entries are left out."""
    try:
        costs_by_id = parse_json((folder / COSTS).read_bytes())
    except (OSError, ValueError):
        return {}
    return {id: cost for id, cost in costs_by_id.items() if _is_cost(cost)} if isinstance(costs_by_id, dict) else {}


def spent(costs: Mapping[str, Mapping[str, Any]], leaves: Iterable[str], fact: str) -> float | None:
    """Return the sum of `seconds` of training or of `inference` over some models, or None if one of them is unknown.

    The sum of training includes the source runs of soups and students, each once.
    """
    ids, todo = set(), list(leaves)
    while todo:
        id = todo.pop()
        if id not in ids:
            ids.add(id)
            todo += costs.get(id, {}).get("made_of", ()) if fact == "seconds" else ()
    values = [costs.get(id, {}).get(fact) for id in sorted(ids)]
    known = [float(value) for value in values if isinstance(value, int | float)]
    return sum(known) if known and len(known) == len(values) else None
