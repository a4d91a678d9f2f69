"""What earlier runs tell of a plan: for each leaf to be trained the nearest run, what differs, time and disk.

Only the latest runs are looked at, so that a plan is as quick among ten thousand runs as among ten. Everything here is
advice to a person; nothing that is trained or reused depends on it.
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

from ..errors import RegistryError, StorageError
from ..machine import processor
from ..registry.registry import ID, Registry, Run
from ..specs.diff import Difference, Entries, RunInputs, differences, entries
from ..specs.spec import Leaf, Resources
from .plan import NEW, Plan, PlannedNode

LATEST = 200
"""How many runs are looked at."""

FREE = {("train", "seed"), ("train", "select"), ("train", "epochs"), ("train", "steps"), ("start",)}

FREE_TABLES = {"heads", "combiner", "optimizer", "schedule", "teacher"}
"""Fields and tables that change no step's cost, or little of it; of tasks and epochs we keep count ourselves."""

GPUS = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True)
class PastRun:
    """A finished run as far as a forecast needs it."""

    id: str
    name: str
    recipe: RunInputs
    entries: Entries
    load: Entries
    seconds: float
    bytes: int
    megabytes: float | None
    """The most memory that it took."""
    machine: tuple[str, int]
    """Kind of device and threads."""

    @classmethod
    def of(cls, run: Run) -> PastRun:
        """Return what a run's manifest says; raise KeyError, TypeError or AttributeError where that is not enough."""
        recipe, environment = RunInputs.of_manifest(run.manifest), run.manifest["environment"]
        return cls(run.id, run.manifest["name"], recipe, entries(recipe.fields), _load(recipe), run.manifest["seconds"],
                   run.size(), run.manifest.get("megabytes"), (_kind(environment), environment["threads"]))


@dataclass(frozen=True)
class LeafForecast:
    """What is known of a leaf before it is trained; None where earlier runs do not tell."""

    nearest: PastRun | None = None
    differences: tuple[Difference, ...] = ()
    seconds: float | None = None
    bytes: int | None = None
    megabytes: float | None = None
    progress: tuple[int, int] | None = None
    """Steps done and steps in all, of a leaf that was stopped."""


@dataclass(frozen=True)
class Forecast:
    """The outlooks of all leaves to be trained, by id in build order."""

    leaves: dict[str, LeafForecast] = field(default_factory=dict)
    jobs: int = 1
    runs: int = 0
    """How many runs the registry has; at most `LATEST` were looked at."""

    @property
    def unknown(self) -> int:
        """How many leaves will take nobody knows how long."""
        return sum(leaf.seconds is None for leaf in self.leaves.values())

    @property
    def seconds(self) -> float:
        """Seconds of a build that starts the leaves of known time longest first, `jobs` at a time."""
        free = [0.0] * self.jobs
        for seconds in sorted((leaf.seconds or 0.0 for leaf in self.leaves.values()), reverse=True):
            heapq.heapreplace(free, free[0] + seconds)
        return max(free)

    @property
    def bytes(self) -> int:
        """Bytes that the leaves of known size will need."""
        return sum(leaf.bytes or 0 for leaf in self.leaves.values())


def forecast(plan: Plan, jobs: int) -> Forecast:
    """Return what earlier runs tell of a plan; where nothing is to be trained, none is read."""
    todo = plan.todo()
    runs, count = latest(plan.registry) if todo else ([], 0)
    return Forecast({node.id: _outlook(node, plan, runs) for node in todo}, jobs, count)


def longest_first(plan: Plan, leaves: Sequence[PlannedNode], ahead: Forecast) -> list[PlannedNode]:
    """Return leaves with those first that the longest chain of training hangs on; one of unknown time counts as long.

    A leaf's chain is its own seconds and those of the leaves that are made from it. List scheduling in this order ends
    at most a third later than the best order does (Graham 1969, for leaves that do not wait for one another).
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
    """Return the latest runs that can be read, and how many there are in all."""
    with suppress(OSError), os.scandir(registry.root) as folder:
        found = [(entry.stat().st_mtime_ns, entry.name) for entry in folder if ID.fullmatch(entry.name)]
        return list(_read(registry, [id for _, id in heapq.nlargest(LATEST, found)])), len(found)
    return [], 0


def _read(registry: Registry, ids: Sequence[str]) -> Iterator[PastRun]:
    for id in ids:
        with suppress(RegistryError, StorageError, KeyError, TypeError, AttributeError):  # a damaged one tells nothing
            if run := registry.find_by_manifest(id):
                yield PastRun.of(run)


def _outlook(node: PlannedNode, plan: Plan, runs: Sequence[PastRun]) -> LeafForecast:
    """Return what earlier runs tell of one leaf."""
    assert isinstance(node.spec, Leaf)
    progress = _progress(plan.registry.attempt(node.id)) if node.action == "resume" else None
    left = 1 - progress[0] / progress[1] if progress else 1.0
    if not runs:
        return LeafForecast(progress=progress)
    recipe = RunInputs.of_leaf(node.spec, node.suite, plan.project)
    ranked = _ranked(node, recipe, runs)
    load, defaults = _load(recipe), entries(recipe.defaults)
    alike = [run for run in ranked if run.load - defaults == load]
    machines = machines_of(node.spec.model.resources)
    timed = next((run for machine in machines for run in alike if run.machine == machine), None)
    seconds = timed.seconds * left * _length(recipe) / _length(timed.recipe) if timed else None
    size, megabytes = alike[0].bytes if alike else None, timed.megabytes if timed else None
    if node.reason != NEW:
        return LeafForecast(None, (), seconds, size, megabytes, progress)
    found = tuple(differences(ranked[0].recipe, recipe, node.spec.table))
    return LeafForecast(ranked[0], found, seconds, size, megabytes)


def _ranked(node: PlannedNode, recipe: RunInputs, runs: Sequence[PastRun]) -> list[PastRun]:
    """Return runs, the nearest first: of the same data, fewest fields that differ, of the same name or sweep."""
    mine, defaults, sweep = entries(recipe.fields), entries(recipe.defaults), node.name.partition("@")[0]

    def distance(run: PastRun) -> tuple[Any, ...]:
        fields = len({key for key, _ in mine ^ (run.entries - defaults)})
        others = run.name != node.name, run.name.partition("@")[0] != sweep
        return run.recipe.content != recipe.content, fields, others, run.name, run.id

    return sorted(runs, key=distance)


def _load(recipe: RunInputs) -> Entries:
    """Return what decides how much a step costs: data, encoder, batch, arithmetic, trained tasks."""
    tasks = recipe.fields.get(("train", "tasks")) or {key[1] for key in recipe.fields if key[0] == "heads"}
    kept = {key: value for key, value in recipe.fields.items()
            if key not in FREE and key[0] not in FREE_TABLES and not key[-1].endswith("dropout")}
    return entries({**kept, ("suite",): recipe.content, ("train", "tasks"): sorted(tasks),
                    ("train", "steps"): ("train", "steps") in recipe.fields})


def _length(recipe: RunInputs) -> float:
    """Return how long a run is, in epochs or, where their steps are set, in steps."""
    length: float = recipe.fields[("train", "epochs")] * recipe.fields.get(("train", "steps"), 1)
    return length


def machines_of(resources: Resources) -> list[tuple[str, int]]:
    """Return the kind of device and the threads that a leaf will be trained with, without torch.

    A processor has two names, the later for runs from before its model was recorded.
    """
    gpus = [line.partition(":")[2].strip() for path in sorted(GPUS.glob("*/information"))
            for line in path.read_text().splitlines() if line.startswith("Model:")]
    if resources.device == "cpu" or (resources.device == "auto" and not gpus):
        return [(f"cpu ({name})", resources.threads) for name in (processor(), os.uname().machine)]
    number = resources.device.partition(":")[2] or "0"
    name = dict(zip(map(str, range(len(gpus))), gpus, strict=True)).get(number, "")
    return [(f"{resources.processes} x {name}" if resources.processes > 1 else name, resources.threads)]


def _kind(environment: Mapping[str, Any]) -> str:
    """Return the device of a run; of a processor, what is known without torch."""
    device: str = environment["device"]
    return f"cpu ({environment['processor']})" if device.startswith("cpu") and "processor" in environment else device


def _progress(attempt: Path) -> tuple[int, int] | None:
    """Return how far a leaf that was stopped had come."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        said = json.loads((attempt / "progress.json").read_bytes())
        if 0 <= said["step"] <= said["steps"] > 0:
            return said["step"], said["steps"]
    return None
