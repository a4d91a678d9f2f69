"""What is published beside the scored trees: how far scores can be trusted, and what the models cost."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import MtrunError, Place, Problem, SpecError
from ..files import write_bytes
from ..plan.plan import Plan
from ..registry.registry import Registry
from ..results.costs import costs
from ..results.result import COSTS, Result
from ..results.result_folder import read_files, read_profile
from ..results.significance import PredictionsCache, update
from ..specs import toml
from ..tasks.predictions import Predictions

SHELF = "predictions"
"""Folder of the registry's cache for Predictions of published systems that are no runs, by profile."""

FACTS = ("seconds", "inference", "megabytes")
"""What a manifest says of costs: seconds of training, seconds to predict 1,000 sentences, most memory."""


def check_names(plan: Plan, folder: Path) -> None:
    """Raise SpecError where a result that a build would write is that of another spec, which is still called so."""
    problems = []
    results = {path.stem: result for path, result in read_files(folder, plan.specs)[0].items()}
    for name, mine in plan.specs.items():
        old, path = results.get(name), folder / f"{name}.json"
        if old is None or old.spec in ("", mine) or old.tree.id == plan.roots[name]:
            continue
        with contextlib.suppress(SpecError):
            if _is_called(plan.project / old.spec, name):
                problems.append(Problem(f"two specs are called `{name}`", Place(mine),
                                        (f"{os.path.relpath(path)} is the result of {old.spec}",),
                                        'give one of them another name, such as `name = "…"` at its top'))
    if problems:
        raise SpecError(*problems)


def _is_called(spec: Path, name: str) -> bool:
    """Tell whether a spec that is there is called so, but for a sweep and settings. Raise SpecError."""
    return spec.is_file() and name.partition("@")[0] == str(toml.read(spec).get("name", spec.stem)).partition("@")[0]


def complete(plan: Plan, found: Mapping[str, Predictions], folder: Path) -> None:
    """Bring significance.json and costs.json in a profile's folder up to date with all results in it.

    `found` are the Predictions of a build by id; those of earlier builds are looked for in the registry. Raise
    RegistryError for a damaged result, StorageError for what cannot be written.
    """
    everything, one_set = list(read_files(folder)[0].values()), read_profile(folder)
    named = {node.id for result in everything for node in result.tree.nodes() if node.name}
    kept = predictions_cache(plan)
    kept.keep({id: said for id, said in found.items() if id in named and not plan.registry.has(id)}, named)

    def find(id: str) -> Predictions | None:
        return found.get(id) or _of_run(plan.registry, id) or kept.find(id)

    if one_set.files:  # else results contradict one another, and nothing is known to be theirs
        update(folder, one_set.results, plan.data, find)
    _write_costs(folder / COSTS, plan.registry, everything)


def predictions_cache(plan: Plan) -> PredictionsCache:
    """Return where the Predictions are kept of the systems of a plan's profile that are no runs."""
    return PredictionsCache(plan.registry.cache / SHELF / plan.profile)


def _of_run(registry: Registry, id: str) -> Predictions | None:
    """Return a run's Predictions, or None where there is none that is sound."""
    with contextlib.suppress(MtrunError):
        run = registry.find(id)
        return run.predictions() if run else None
    return None


def _write_costs(path: Path, registry: Registry, results: Sequence[Result]) -> None:
    """Write what each published model cost, as far as that is known."""
    old = costs(path.parent)
    new: dict[str, dict[str, Any]] = {}
    todo = [node.id for result in results for node in result.tree.nodes() if node.kind == "leaf"]
    while todo:
        id = todo.pop()
        if id in new:
            continue
        with contextlib.suppress(MtrunError):
            run = registry.find_by_manifest(id)
            if run:
                new[id] = _cost(run.manifest)
        if id not in new and id in old:
            new[id] = old[id]
        todo += new.get(id, {}).get("made_of", [])
    if new != old:
        lines = [f" {json.dumps(id)}: {json.dumps(new[id])}" for id in sorted(new)]
        write_bytes(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode())


def _cost(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a manifest says of costs, on which device, and what else had to be trained for it."""
    facts = {name: manifest[name] for name in FACTS if name in manifest}
    facts |= {"made_of": sorted(manifest["made_of"])} if "made_of" in manifest else {}
    return facts | {"device": manifest.get("environment", {}).get("device", "")}
