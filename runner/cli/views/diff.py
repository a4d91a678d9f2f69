"""Two finished runs side by side: the fields that differ, what else differs about their making, their scores."""

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
"""Numbers of a manifest that are shown under the scores, with their decimals."""


@dataclass(frozen=True)
class Comparison:
    """What differs between two runs."""

    old: Run
    new: Run
    fields: tuple[Difference, ...]
    """What decides their results."""
    making: tuple[Difference, ...]
    """Code, machine and versions, which are recorded and decide no id."""


def named(registry: Registry, word: str) -> Run:
    """Return the run of an id, of the beginning of one id only, or of a name of one run only. Raise UsageError."""
    if ID.fullmatch(word) and (run := registry.find(word)):
        return run
    names = dict(_names(registry))
    found = sorted(id for id, name in names.items() if word and (id.startswith(word) or name == word))
    if len(found) == 1 and (run := registry.find(found[0])):
        return run
    if found:
        raise UsageError(f"`{word}` can be any of {len(found)} runs: {', '.join(found[:8])}{', …' * (len(found) > 8)}")
    raise UsageError(f"no run `{word}`. {did_you_mean(word, {*names.values(), *names}) or 'mtrun ls lists the runs'}")


def _names(registry: Registry) -> Iterator[tuple[str, str]]:
    """Yield id and name of every run that is not damaged and can be read."""
    for id in registry.ids():
        with suppress(RegistryError, StorageError):
            if run := registry.find_by_manifest(id):
                yield id, run.manifest["name"]


def compared(old: Run, new: Run) -> Comparison:
    """Return what differs between two runs. Raise RegistryError where a manifest is damaged."""
    for run in (old, new):
        if missing := {"inputs", "source", "environment"} - run.manifest.keys():
            raise RegistryError(f"run {run.id} is damaged: its manifest lacks {', '.join(sorted(missing))}")
    found = differences(RunInputs.of_manifest(old.manifest), RunInputs.of_manifest(new.manifest))
    return Comparison(old, new, tuple(found), tuple(_making(old.manifest, new.manifest)))


def _making(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Difference]:
    """Yield the machine, the versions and the code of parts that both runs have, where they differ."""
    for table in ("environment", "source"):
        for key in sorted(old[table].keys() & new[table].keys()):
            if old[table][key] != new[table][key]:
                yield Difference(f"{table} {key}", old[table][key], new[table][key])


def text(comparison: Comparison) -> str:
    """Return a comparison for a person."""
    old, new = comparison.old.manifest, comparison.new.manifest
    lines = [f"{old['name']} {old['id']} -> {new['name']} {new['id']}", ""]
    lines += [f"  {one}" for one in comparison.fields] or ["  no field differs"]
    if comparison.making:
        lines += ["", "not in the id:", *(f"  {one}" for one in comparison.making)]
    return "\n".join(clean(line) for line in [*lines, "", *_table(old, new)])


def _table(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return the dev scores and some facts of both as a table."""
    from tabulate import tabulate  # here, since not every command shows a table

    tasks = [*(key for key in old["dev"] | new["dev"] if key != OVERALL), OVERALL]
    rows = [[f"{task} dev", *_cells(old["dev"].get(task), new["dev"].get(task), 3)] for task in tasks]
    rows += [[key, *_cells(old[key], new[key], decimals)] for key, decimals in FACTS.items()]
    return tabulate(rows, ["", old["id"], new["id"], "change"], disable_numparse=True,
                    colalign=("left", "right", "right", "right")).splitlines()


def _cells(old: float | None, new: float | None, decimals: int) -> list[str]:
    """Return two numbers and what the second has more."""
    change = "" if old is None or new is None else f"{round(new - old, decimals) + 0.0:+,.{decimals}f}"
    return [*("—" if number is None else f"{number:,.{decimals}f}" for number in (old, new)), change]


def line(comparison: Comparison) -> str:
    """Return a comparison as one line of JSON."""
    sides = {side: {key: run.manifest[key] for key in ("id", "name", "dev", *FACTS)}
             for side, run in (("old", comparison.old), ("new", comparison.new))}
    return json.dumps({"v": 1, **sides, "differences": [one.to_json() for one in comparison.fields],
                       "making": [one.to_json() for one in comparison.making]})
