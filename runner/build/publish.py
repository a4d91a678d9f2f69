"""Publish intervals, p-values and costs next to the results of a profile."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from ..errors import MtrunError, Place, Problem, SpecError, StorageError
from ..files import locked, write_bytes
from ..plan.plan import Plan
from ..registry.registry import Registry
from ..registry.reservations import removal
from ..results.costs import costs
from ..results.result import COSTS, Result
from ..results.result_folder import read_files, read_profile
from ..results.significance import PredictionsCache, update
from ..specs import toml
from ..tasks.predictions import Predictions

SIGNIFICANT = "significance"
"""Folder in the cache of the registry for the hashes of the significance files, by profile."""

PREDICTIONS = "predictions"
"""Folder in the cache of the registry for Predictions of published systems that are not runs, by profile."""

FACTS = ("seconds", "inference", "megabytes")
"""Costs in a manifest: seconds of training, seconds to predict 1,000 sentences, peak memory."""


def check_names(plan: Plan, folder: Path) -> None:
    """Raise SpecError if a build would overwrite the result of another existing spec of the same name."""
    problems = []
    results = {path.stem: result for path, result in read_files(folder, plan.specs)[0].items()}
    for name, spec in plan.specs.items():
        old, path = results.get(name), folder / f"{name}.json"
        if old is None or old.spec in ("", spec) or old.tree.id == plan.roots[name]:
            continue
        with contextlib.suppress(SpecError):
            if _is_called(plan.project / old.spec, name):
                problems.append(Problem(f"two specs are called `{name}`", Place(spec),
                                        (f"{os.path.relpath(path)} is the result of {old.spec}",),
                                        'give one of them another name, such as `name = "…"` at its top'))
    if problems:
        raise SpecError(*problems)


def _is_called(spec: Path, name: str) -> bool:
    """Return whether a spec exists and has a name, apart from sweep and settings. Raise SpecError."""
    return spec.is_file() and name.partition("@")[0] == str(toml.read(spec).get("name", spec.stem)).partition("@")[0]


def complete(plan: Plan, predictions: Mapping[str, Predictions], folder: Path) -> None:
    """Update significance.json and costs.json in the folder of a profile to all results in it.

    `predictions` are those of a build by id; those of earlier builds are read from the registry. Raise RegistryError
    for a damaged result, StorageError if a file cannot be written.
    """
    with contextlib.ExitStack() as alone:  # else builds that end together overwrite each other's
        with contextlib.suppress(StorageError):  # a registry that cannot be written
            alone.enter_context(locked(plan.registry.cache / SIGNIFICANT / f"{plan.profile}.lock"))
        _complete(plan, predictions, folder)


def _complete(plan: Plan, predictions: Mapping[str, Predictions], folder: Path) -> None:
    """Update both files while no other build does."""
    results, one_set = list(read_files(folder)[0].values()), read_profile(folder)
    ids = {node.id for result in results for node in result.tree.nodes() if node.name}
    cache = predictions_cache(plan)
    for id in ids & predictions.keys():
        if not plan.registry.has(id):
            cache.keep(id, predictions[id])
    _remove_unpublished(cache, ids, plan.registry)

    def find(id: str) -> Predictions | None:
        return predictions.get(id) or _of_run(plan.registry, id) or cache.find(id)

    if one_set.files:  # else results contradict one another, and predictions cannot be assigned to them
        update(folder, one_set.results, plan.data, find, plan.registry.cache / SIGNIFICANT / plan.profile)
    _write_costs(folder / COSTS, plan.registry, results)


def _remove_unpublished(cache: PredictionsCache, ids: Set[str], registry: Registry) -> None:
    """Delete cached Predictions of systems without a result, but for those that a running build has reserved."""
    if not cache.ids() <= ids:
        with contextlib.suppress(StorageError), removal(registry) as reservations:
            for id in cache.ids() - ids:
                if not reservations.covering(id):
                    cache.remove(id)


def predictions_cache(plan: Plan) -> PredictionsCache:
    """Return the cache of Predictions of systems that are not runs, of the profile of a plan."""
    return PredictionsCache(plan.registry.cache / PREDICTIONS / plan.profile)


def _of_run(registry: Registry, id: str) -> Predictions | None:
    """Return the Predictions of a run, or None if it is missing or damaged."""
    with contextlib.suppress(MtrunError):
        run = registry.find(id)
        return run.predictions() if run else None
    return None


def _write_costs(path: Path, registry: Registry, results: Sequence[Result]) -> None:
    """Write the known costs of all published models."""
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
    """Return costs, device and source runs from a manifest."""
    facts = {name: manifest[name] for name in FACTS if name in manifest}
    facts |= {"made_of": sorted(manifest["made_of"])} if "made_of" in manifest else {}
    return facts | {"device": manifest.get("environment", {}).get("device", "")}
