"""What published models cost."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .result import COSTS, _is_cost


def costs(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what each model in a folder of results cost, by id; nothing where that is not known or makes no sense."""
    try:
        found = json.loads((folder / COSTS).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return {id: cost for id, cost in found.items() if _is_cost(cost)} if isinstance(found, dict) else {}


def spent(costs: Mapping[str, Mapping[str, Any]], leaves: Iterable[str], fact: str) -> float | None:
    """Return `seconds` of training or of `inference` of some models together; None where one of them is not known.

    What soups and students are made of had to be trained, too, and is counted once.
    """
    counted, todo = set(), list(leaves)
    while todo:
        id = todo.pop()
        if id not in counted:
            counted.add(id)
            todo += costs.get(id, {}).get("made_of", ()) if fact == "seconds" else ()
    found = [costs.get(id, {}).get(fact) for id in sorted(counted)]
    known = [float(value) for value in found if isinstance(value, int | float)]
    return sum(known) if known and len(known) == len(found) else None
