"""Compare two finished runs: fields, code and environment, scores."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ...errors import RegistryError, StorageError, UsageError, clean, did_you_mean
from ...registry.registry import ID, Registry, Run
from ...specs.diff import Difference, RunInputs, differences
from ...tasks.metrics import OVERALL

FACTS = {"epoch": 0, "parameters": 0, "seconds": 1}
"""Numbers of a manifest shown below the scores, with their decimals."""


@dataclass(frozen=True)
class Comparison:
    """Differences between two runs."""

    old: Run
    new: Run
    fields: tuple[Difference, ...]
    """Fields that decide the results."""
    making: tuple[Difference, ...]
    """Code, machine and versions, which are recorded and not part of the id."""


def find_run(registry: Registry, word: str) -> Run:
    """Return the run with an id, a prefix of its id, or a name. Raise UsageError where none or several match."""
    if ID.fullmatch(word) and (run := registry.find(word)):
        return run
    names = dict(_names(registry))
    matches = sorted(id for id, name in names.items() if word and (id.startswith(word) or name == word))
    if len(matches) == 1 and (run := registry.find(matches[0])):
        return run
    if matches:
        some = f"{', '.join(matches[:8])}{', …' * (len(matches) > 8)}"
        raise UsageError(f"`{word}` can be any of {len(matches)} runs: {some}")
    raise UsageError(f"no run `{word}`. {did_you_mean(word, {*names.values(), *names}) or 'mtrun ls lists the runs'}")


def _names(registry: Registry) -> Iterator[tuple[str, str]]:
    """Yield id and name of every readable, undamaged run."""
    for id in registry.ids():
        with suppress(RegistryError, StorageError):
            if run := registry.find_by_manifest(id):
                yield id, run.manifest["name"]


def compare(old: Run, new: Run) -> Comparison:
    """Compare two runs. Raise RegistryError where a manifest is damaged."""
    for run in (old, new):
        if missing := {"inputs", "source", "environment"} - run.manifest.keys():
            raise RegistryError(f"run {run.id} is damaged: its manifest lacks {', '.join(sorted(missing))}")
    fields = differences(RunInputs.of_manifest(old.manifest), RunInputs.of_manifest(new.manifest))
    return Comparison(old, new, tuple(fields), tuple(_provenance(old.manifest, new.manifest)))


def _provenance(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Difference]:
    """Yield differences in machine, versions and code, of keys that both runs recorded."""
    for table in ("environment", "source"):
        for key in sorted(old[table].keys() & new[table].keys()):
            if old[table][key] != new[table][key]:
                yield Difference(f"{table} {key}", old[table][key], new[table][key])


def text(comparison: Comparison) -> str:
    """Render a comparison as plain text."""
    old, new = comparison.old.manifest, comparison.new.manifest
    lines = [f"{old['name']} {old['id']} -> {new['name']} {new['id']}", ""]
    lines += [f"  {field}" for field in comparison.fields] or ["  no field differs"]
    if comparison.making:
        lines += ["", "not in the id:", *(f"  {each}" for each in comparison.making)]
    return "\n".join(clean(line) for line in [*lines, "", *_table(old, new)])


def _table(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return the rows of a table of dev scores and FACTS of both runs."""
    from tabulate import tabulate  # here, since not every command shows a table

    tasks = [*(key for key in old["dev"] | new["dev"] if key != OVERALL), OVERALL]
    rows = [[f"{task} dev", *_cells(old["dev"].get(task), new["dev"].get(task), 3)] for task in tasks]
    rows += [[key, *_cells(old[key], new[key], decimals)] for key, decimals in FACTS.items()]
    return tabulate(rows, ["", old["id"], new["id"], "change"], disable_numparse=True,
                    colalign=("left", "right", "right", "right")).splitlines()


def _cells(old: float | None, new: float | None, decimals: int) -> list[str]:
    """Return two formatted numbers and their difference."""
    change = "" if old is None or new is None else f"{round(new - old, decimals) + 0.0:+,.{decimals}f}"
    return [*("—" if number is None else f"{number:,.{decimals}f}" for number in (old, new)), change]


def json_line(comparison: Comparison) -> str:
    """Render a comparison as one line of JSON."""
    sides = {side: {key: run.manifest[key] for key in ("id", "name", "dev", *FACTS)}
             for side, run in (("old", comparison.old), ("new", comparison.new))}
    return json.dumps({"v": 1, **sides, "differences": [field.to_json() for field in comparison.fields],
                       "making": [each.to_json() for each in comparison.making]})
