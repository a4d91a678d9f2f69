"""Expand the table of a sweep to the points of a grid, each with a name that is safe for files."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import Place, Problem, SpecError, did_you_mean
from ..files import is_safe_name
from .merge import combined, nested
from .toml import Array, Table

POINTS = 1000
"""Default of `limit`, the maximal number of points of a sweep."""

NODES = 10_000
"""Maximal number of nodes of a build."""

KEYS = 32
"""Maximal number of keys of one sweep."""

LEVELS = 16
"""Maximal number of parts of a dotted key."""

EXECUTION = ("resources", "track")
"""Tables of a model that decide no result."""

OPTIONS = ("limit", "points")
"""Keys of a sweep that are not swept."""

Axis = list[tuple[str, Table]]
"""Choices of one axis: label and overriding table of each."""


def spread(sweep: Table) -> Table:
    """Split quoted dotted keys of a sweep: `"a.b" = [...]` -> `a.b = [...]`. Raise SpecError for a key set twice."""
    if deep := next((key for key in sweep if key.count(".") >= LEVELS), ""):
        raise SpecError(Problem(f"a key of over {LEVELS} parts", sweep.keys_at[deep]))
    tables = [nested(key.split("."), value, sweep.keys_at[key], sweep.values_at[key]) for key, value in sweep.items()]
    seen: dict[tuple[str, ...], Place] = {}
    for path, _, key_at, _ in (leaf for table in tables for leaf in _leaves(table)):
        for length in range(1, len(path) + 1):
            if first := seen.get(path[:length]):
                raise SpecError(Problem(f"`{'.'.join(path)}` is set twice in a sweep", key_at, (f"also at {first}",)))
        seen[path] = key_at
    return combined(Table(sweep.place), *tables)


def points(name: str, sweep: Table, forbidden: Sequence[str] = ()) -> list[tuple[str, Table]]:
    """Return the name and the overriding table of each point; `forbidden` keys cannot be swept. Raise SpecError."""
    problems: list[Problem] = []
    swept = [leaf for leaf in _leaves(sweep) if leaf[0][0] not in OPTIONS]
    for path, values, key_at, at in swept:
        if path[0] in forbidden:
            problems.append(Problem(f"`{path[0]}` cannot be swept", key_at))
        elif not isinstance(values, Array) or not values:
            problems.append(_not_a_list(".".join(path), values, at))
    own_points = _named_points(sweep, problems) if "points" in sweep else []
    problems += _too_many(sweep, [len(own_points) or 1, *(len(v) for _, v, *_ in swept if isinstance(v, Array))])
    if problems:
        raise SpecError(*problems)
    titles = _titles([path for path, *_ in swept])
    axes = [_axis(path, titles[path], values, key_at, problems) for path, values, key_at, _ in swept]
    if problems:
        raise SpecError(*problems)
    grid = itertools.product(*[own_points] * bool(own_points), *axes)
    return [_point(name, choices, sweep.place) for choices in grid]


def with_settings(name: str, settings: Table) -> str:
    """Append the settings of a command line to the name of a spec, as for a point of a sweep: `sum@seed=1`.

    Keys of `[train]` are shortened, all others are in full (`sum@suite.seed=1`), so that no two models share a name.
    """
    leaves = [leaf for leaf in _leaves(settings) if leaf[0][0] not in EXECUTION]
    titles = [_safe(".".join(path[path[0] == "train" and len(path) > 1 :]), path) for path, *_ in leaves]
    labels = [f"{title}={_label(value)}" for title, (_, value, *_) in zip(titles, leaves, strict=True)]
    return _shortened(f"{name}{',' if '@' in name else '@'}{','.join(labels)}") if labels else name


def _too_many(sweep: Table, sizes: list[int]) -> list[Problem]:
    """Return the problem of a sweep over its limit, or of an invalid limit."""
    limit, size = sweep.get("limit", POINTS), math.prod(sizes)
    if type(limit) is not int or not 1 <= limit <= NODES:
        return [Problem(f"`limit` in `[sweep]` must be a whole number from 1 to {NODES:,}", sweep.values_at["limit"])]
    if len(sizes) > KEYS:
        return [Problem(f"a sweep has at most {KEYS} keys", sweep.place)]
    if size > limit:
        hint = f"to mean it, write `limit = {size}` under `[sweep]`"
        return [Problem(f"this sweep has {size:,} points, and its limit is {limit:,}", sweep.place, (),
                        hint if size <= NODES else f"a build has at most {NODES:,} nodes: sweep fewer values")]
    return []


def _leaves(table: Table, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any, Place, Place]]:
    """Yield the path of each key without a table, with its value and the places of both."""
    for key, value in table.items():
        if isinstance(value, Table):
            yield from _leaves(value, (*above, key))
        else:
            yield (*above, key), value, table.keys_at[key], table.values_at[key]


def _not_a_list(key: str, value: Any, at: Place) -> Problem:
    given = "an empty list" if value == [] else f"`{value}`"
    return Problem(f"`{key}` in `[sweep]` must be a list of the values to try, not {given}", at,
                   hint=did_you_mean(key, OPTIONS) or f"such as `{key} = [1, 2, 3]`; one value needs no sweep")


def _named_points(sweep: Table, problems: list[Problem]) -> Axis:
    """Return the points under `[sweep.points]`, which have names of their own."""
    table = sweep["points"]
    good = isinstance(table, Table) and bool(table) and all(isinstance(point, Table) for point in table.values())
    if not good:
        problems.append(Problem("`points` in `[sweep]` must hold tables, one for each point", sweep.values_at["points"],
                                hint="such as `[sweep.points.small]`, with the keys that the point sets under it"))
        return []
    problems += [Problem(f"`{name}` cannot be the name of a point", table.keys_at[name],
                         hint="a name has letters, digits and . _ - + only")
                 for name in table if not is_safe_name(name) or set(name) & set("@=,")]
    return [(name, spread(point)) for name, point in table.items()]


def _titles(paths: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
    """Return the shortest unique suffix of each dotted key."""
    ends = Counter(path[-n:] for path in paths for n in range(1, len(path) + 1))
    lengths = {path: next((n for n in range(1, len(path)) if ends[path[-n:]] == 1), len(path)) for path in paths}
    return {path: _safe(".".join(path[-n:]), path) for path, n in lengths.items()}


def _axis(path: tuple[str, ...], title: str, values: Array, key_at: Place, problems: list[Problem]) -> Axis:
    """Return the axis of one key; append problems of equal values."""
    out: dict[str, tuple[str, Table]] = {}
    for value, at in zip(values, values.items_at, strict=True):
        label = f"{title}={_label(value)}"
        if label.lower() in out and out[label.lower()][0] != label:  # one file where names have no case
            label = f"{label}-{_hash(value)}"
        if label.lower() in out:
            problems.append(Problem(f"`{'.'.join(path)}` in `[sweep]` has the same value twice", at,
                                    hint="to train the same model again, sweep `train.seed`"))
        out[label.lower()] = label, nested(path, value, key_at, at)
    return list(out.values())


def _label(value: Any) -> str:
    """Format a value as part of a name; numbers and plain words are unchanged."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Table):
        kind = str(value.get("type", ""))
        return _safe(kind if len(value) == 1 else f"{kind} ", value)
    return "+".join(map(_label, value)) if isinstance(value, Array) and value else _safe(str(value), value)


def _safe(text: str, value: Any) -> str:
    """Replace unsafe characters of a text; a changed text gets a hash of the value as a suffix."""
    kept = re.sub(r"[^A-Za-z0-9_.+-]+", "-", text).strip("-." if text[:1] != "-" else ".")[:32]
    return kept if kept == text else "-".join(filter(None, (kept, _hash(value))))


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:6]


def _point(name: str, choices: tuple[tuple[str, Table], ...], at: Place) -> tuple[str, Table]:
    """Return the name and the overriding table of one point of the grid."""
    full = f"{name}@{','.join(label for label, _ in choices)}" if choices else name
    return _shortened(full), combined(Table(at), *(overriding for _, overriding in choices))


def _shortened(name: str) -> str:
    """Shorten a name that is too long for a file, with a hash as a suffix."""
    return name if is_safe_name(name) else f"{name[:112]}-{_hash(name)}"


def is_point(point: str, name: str) -> bool:
    """Tell whether a name can be a point of the sweep `name`, or a build of `name` with settings."""
    return point.startswith(f"{name}@"[:112])
