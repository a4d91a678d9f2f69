"""Forecast of time, disk and memory of each leaf to train, with the most similar earlier run and its differences.

Only the latest runs are read, so that the time of a plan does not grow with the registry. Forecasts inform the user and
order the queue; nothing that is trained or reused depends on them.
"""

from __future__ import annotations

import heapq
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import MtrunError, Place, RegistryError, StorageError
from ..machine import processor
from ..parts.encoders.bert.architectures import Sizes
from ..registry.registry import ID, Registry, Run
from ..specs.diff import Difference, Entries, RunInputs, differences, entries
from ..specs.spec import Leaf, Model, Resources, SoupModel
from ..specs.stored_run import model_of
from . import encoder_cost
from .plan import NEW, Plan, PlannedNode

LATEST = 200
"""Maximal number of runs that are read."""

FREE = {("train", "seed"), ("train", "select"), ("train", "epochs"), ("train", "steps"), ("start",)}

FREE_TABLES = {"heads", "combiner", "optimizer", "schedule", "teacher"}
"""Fields and tables with little or no influence on the cost of a step; tasks and epochs are counted separately."""

GPUS = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True)
class PastRun:
    """The part of a finished run that a forecast needs."""

    id: str
    name: str
    recipe: RunInputs
    entries: Entries
    load: Entries
    seconds: float
    bytes: int
    megabytes: float | None
    """Peak memory."""
    machine: tuple[str, int]
    """Device name and number of threads."""
    spec: Mapping[str, Any]
    """The resolved spec in the manifest."""

    @classmethod
    def of(cls, run: Run) -> PastRun:
        """Read the manifest of a run; raise KeyError, TypeError or AttributeError if it lacks a value."""
        recipe, environment = RunInputs.of_manifest(run.manifest), run.manifest["environment"]
        return cls(run.id, run.manifest["name"], recipe, entries(recipe.fields), _load(recipe), run.manifest["seconds"],
                   run.size(), run.manifest.get("megabytes"), (_kind(environment), environment["threads"]),
                   run.manifest["spec"])


@dataclass(frozen=True)
class LeafForecast:
    """Forecast of one leaf; None where no earlier run is comparable."""

    nearest: PastRun | None = None
    differences: tuple[Difference, ...] = ()
    seconds: float | None = None
    bytes: int | None = None
    megabytes: float | None = None
    by_size: bool = False
    """Whether bytes, megabytes and, if known, seconds are estimates from the size of the encoder."""
    progress: tuple[int, int] | None = None
    """Steps done and total steps of an interrupted attempt."""


@dataclass(frozen=True)
class Forecast:
    """Forecasts of all leaves to train, by id in build order."""

    leaves: dict[str, LeafForecast] = field(default_factory=dict)
    jobs: int = 1
    runs: int = 0
    """Number of runs in the registry; at most `LATEST` were read."""

    @property
    def unknown(self) -> int:
        """Number of leaves without a forecast of time."""
        return sum(leaf.seconds is None for leaf in self.leaves.values())

    @property
    def seconds(self) -> float:
        """Seconds of a build that starts the leaves with a forecast longest first, `jobs` at a time."""
        free = [0.0] * self.jobs
        for seconds in sorted((leaf.seconds or 0.0 for leaf in self.leaves.values()), reverse=True):
            heapq.heapreplace(free, free[0] + seconds)
        return max(free)

    @property
    def by_size(self) -> int:
        """Number of leaves whose forecast is an estimate from the size of their encoder."""
        return sum(leaf.by_size for leaf in self.leaves.values())

    @property
    def megabytes(self) -> float:
        """Most memory of a leaf, as far as it is known."""
        return max((leaf.megabytes or 0.0 for leaf in self.leaves.values()), default=0.0)

    @property
    def bytes(self) -> int:
        """Total bytes of the leaves with a forecast of size."""
        return sum(leaf.bytes or 0 for leaf in self.leaves.values())


def forecast(plan: Plan, jobs: int) -> Forecast:
    """Return the forecast of a plan; no run is read if there is nothing to train."""
    todo = plan.todo()
    runs, count = latest(plan.registry) if todo else ([], 0)
    return Forecast({node.id: _leaf_forecast(node, plan, runs) for node in todo}, jobs, count)


def longest_first(plan: Plan, leaves: Sequence[PlannedNode], ahead: Forecast) -> list[PlannedNode]:
    """Sort leaves by the length of their critical path, longest first; an unknown time counts as the longest known.

    The critical path of a leaf is its own seconds plus the longest path of nodes that depend on it. List scheduling in
    this order takes at most 4/3 of the optimal time (Graham 1969, for independent leaves).
    """
    known = {id: leaf.seconds for id, leaf in ahead.leaves.items() if leaf.seconds is not None}
    most, chain = max(known.values(), default=1.0), dict[str, float]()
    todo = {leaf.id for leaf in leaves}
    for node in reversed(plan.nodes.values()):
        chain[node.id] = chain.get(node.id, 0.0) + (known.get(node.id, most) if node.id in todo else 0.0)
        for member in (*node.members, *node.needs):
            chain[member] = max(chain.get(member, 0.0), chain[node.id])
    return sorted(leaves, key=lambda leaf: -chain[leaf.id])


def latest(registry: Registry) -> tuple[list[PastRun], int]:
    """Return the latest readable runs and the number of all runs."""
    with suppress(OSError), os.scandir(registry.root) as folder:
        ids = [(entry.stat().st_mtime_ns, entry.name) for entry in folder if ID.fullmatch(entry.name)]
        return list(_read(registry, [id for _, id in heapq.nlargest(LATEST, ids)])), len(ids)
    return [], 0


def _read(registry: Registry, ids: Sequence[str]) -> Iterator[PastRun]:
    for id in ids:
        with suppress(RegistryError, StorageError, KeyError, TypeError, AttributeError):  # a damaged run is skipped
            if run := registry.find_by_manifest(id):
                yield PastRun.of(run)


def _leaf_forecast(node: PlannedNode, plan: Plan, runs: Sequence[PastRun]) -> LeafForecast:
    """Return the forecast of one leaf."""
    assert isinstance(node.spec, Leaf)
    progress = _progress(plan.registry.attempt(node.id)) if node.action == "resume" else None
    remaining = 1 - progress[0] / progress[1] if progress else 1.0
    recipe = RunInputs.of_leaf(node.spec, node.suite, plan.project)
    ranked = _ranked(node, recipe, runs)
    load, defaults = _load(recipe), entries(recipe.defaults)
    comparable = [run for run in ranked if run.load - defaults == load]
    machines = machines_of(node.spec.model.resources)
    timed = next((run for machine in machines for run in comparable if run.machine == machine), None)
    seconds = timed.seconds * _length(recipe) / _length(timed.recipe) if timed else None
    size, megabytes = comparable[0].bytes if comparable else None, timed.megabytes if timed else None
    sizes = None if comparable or isinstance(node.spec.model, SoupModel) else _sizes(node.spec.model, plan.project)
    if sizes:
        size = encoder_cost.stored_bytes(node.spec.model, sizes)
        megabytes = encoder_cost.peak_megabytes(node.spec.model, sizes)
        like = [run for run in ranked if _apart(run.load - defaults) == _apart(load) and run.machine in machines]
        seconds = _scaled(like, recipe, encoder_cost.step_cost(node.spec.model, sizes), plan.project)
    seconds = seconds * remaining if seconds is not None else None
    is_new = node.reason == NEW and bool(runs)
    changes = tuple(differences(ranked[0].recipe, recipe, node.spec.table)) if is_new else ()
    return LeafForecast(ranked[0] if is_new else None, changes, seconds, size, megabytes, bool(sizes), progress)


def _sizes(model: Model, project: Path) -> Sizes | None:
    """Return the sizes of a model's encoder, or None if they are not known here."""
    with suppress(MtrunError):
        return model.encoder.sizes(project)
    return None


def _apart(load: Entries) -> Entries:
    """Return what determines the cost of a step apart from the encoder."""
    return frozenset(each for each in load if each[0][0] not in ("encoder", "adapter"))


def _scaled(runs: Sequence[PastRun], recipe: RunInputs, cost: float, project: Path) -> float | None:
    """Return the seconds of a run with other data equal, scaled by the cost of a step; None without such a run."""
    for run in runs:
        with suppress(MtrunError):
            model = model_of(run.spec, Place(f"run {run.id}"), project)
            if sizes := model.encoder.sizes(project):
                share = cost / encoder_cost.step_cost(model, sizes)
                return run.seconds * share * _length(recipe) / _length(run.recipe)
    return None


def _ranked(node: PlannedNode, recipe: RunInputs, runs: Sequence[PastRun]) -> list[PastRun]:
    """Sort runs by similarity: the same data first, then fewest different fields, then the same name or sweep."""
    fields, defaults, sweep = entries(recipe.fields), entries(recipe.defaults), node.name.partition("@")[0]

    def distance(run: PastRun) -> tuple[Any, ...]:
        count = len({key for key, _ in fields ^ (run.entries - defaults)})
        others = run.name != node.name, run.name.partition("@")[0] != sweep
        return run.recipe.content != recipe.content, count, others, run.name, run.id

    return sorted(runs, key=distance)


def _load(recipe: RunInputs) -> Entries:
    """Return the values that determine the cost of a step: data, encoder, batch, precision, trained tasks."""
    tasks = recipe.fields.get(("train", "tasks")) or {key[1] for key in recipe.fields if key[0] == "heads"}
    kept = {key: value for key, value in recipe.fields.items()
            if key not in FREE and key[0] not in FREE_TABLES and not key[-1].endswith("dropout")}
    return entries({**kept, ("suite",): recipe.content, ("train", "tasks"): sorted(tasks),
                    ("train", "steps"): ("train", "steps") in recipe.fields})


def _length(recipe: RunInputs) -> float:
    """Return the length of a run in epochs or, if the steps of an epoch are set, in steps."""
    length: float = recipe.fields[("train", "epochs")] * recipe.fields.get(("train", "steps"), 1)
    return length


def machines_of(resources: Resources) -> list[tuple[str, int]]:
    """Return names of the device, and the threads, that a leaf will be trained with; does not import torch.

    A CPU has two names: its model, and its architecture for runs whose manifest has no model.
    """
    gpus = [line.partition(":")[2].strip() for path in sorted(GPUS.glob("*/information"))
            for line in path.read_text().splitlines() if line.startswith("Model:")]
    if resources.device == "cpu" or (resources.device == "auto" and not gpus):
        return [(f"cpu ({name})", resources.threads) for name in (processor(), os.uname().machine)]
    number = resources.device.partition(":")[2] or "0"
    name = dict(zip(map(str, range(len(gpus))), gpus, strict=True)).get(number, "")
    return [(f"{resources.processes} x {name}" if resources.processes > 1 else name, resources.threads)]


def _kind(environment: Mapping[str, Any]) -> str:
    """Return the device name of a run; of a CPU, the model without the instruction set."""
    device: str = environment["device"]
    return f"cpu ({environment['processor']})" if device.startswith("cpu") and "processor" in environment else device


def _progress(attempt: Path) -> tuple[int, int] | None:
    """Return steps done and total steps of an interrupted attempt, or None if its progress is unreadable."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        progress = json.loads((attempt / "progress.json").read_bytes())
        if 0 <= progress["step"] <= progress["steps"] > 0:
            return progress["step"], progress["steps"]
    return None
