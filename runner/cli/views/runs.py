"""Render the content of a registry: the list of runs, one run in full, attempts in progress, logs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from ...errors import RegistryError, StorageError, clean
from ...registry import lease
from ...registry.attempt import Attempt
from ...registry.registry import HISTORY, ID, Registry, Run

POLL_SECONDS = 0.2

KEYS: dict[str, Callable[[Run], Any]] = {
    "name": lambda run: run.manifest["name"],
    "id": lambda run: run.id,
    "overall": lambda run: run.manifest["dev"].get("overall") or 0.0,
    "seconds": lambda run: run.manifest["seconds"],
    "size": lambda run: run.size(),
    "time": lambda run: run.manifest.get("finished", ""),
}
"""Sort keys of runs."""


@dataclass(frozen=True)
class Inventory:
    """Finished, damaged, unreadable and unfinished runs of a registry that match patterns."""

    runs: list[Run]
    damaged: dict[str, str] = field(default_factory=dict)
    """Error message of each damaged run, by id."""
    unread: list[str] = field(default_factory=list)
    """Error messages of runs that cannot be read."""
    attempts: list[InProgress] = field(default_factory=list)

    @classmethod
    def of(cls, registry: Registry, patterns: Sequence[str] = (), key: str = "name") -> Inventory:
        """List the runs whose name or id matches a pattern, such as `sum-*`, sorted by a key and then by id."""
        runs, damaged, unread = [], dict[str, str](), list[str]()
        for id in registry.ids():
            try:
                run = registry.find_by_manifest(id)
            except RegistryError as error:
                damaged[id] = str(error)
                continue
            except StorageError as error:
                unread.append(str(error))
                continue
            if run and _matches(run.manifest["name"], id, patterns):
                runs.append(run)
        try:
            attempts = [work for work in in_progress(registry) if _matches(work.name, work.id, patterns)]
        except OSError as error:  # somebody else's folder
            attempts = []
            unread.append(f"cannot read {registry.attempts}: {error.strerror}")
        return cls(sorted(runs, key=KEYS[key]), damaged, unread, attempts)

    def notes(self) -> Iterator[str]:
        """Yield messages on total size, unfinished, damaged and unreadable runs."""
        size = sum(run.size() for run in self.runs)
        yield f"{len(self.runs):,} run{'s' * (len(self.runs) != 1)}, {size / 1e6:,.1f} MB"
        for attempt in self.attempts:
            yield attempt.text()
        for id, why in self.damaged.items():
            yield f"{id} is damaged: {why}; `mtrun verify` tells more"
        yield from self.unread


@dataclass(frozen=True)
class InProgress:
    """Attempt at a run that is not finished."""

    id: str
    name: str
    progress: dict[str, Any]
    holder: lease.Holder | None
    has_failed: bool = False

    def text(self) -> str:
        """Render the attempt's state in one line."""
        without = "failed" if self.has_failed else "stopped"
        state = f"in training on {self.holder.host}, process {self.holder.pid}" if self.holder else without
        step = f", step {self.progress['step']} of {self.progress['steps']}" if "step" in self.progress else ""
        return clean(f"{self.name} ({self.id}) is {state}{step}")


def in_progress(registry: Registry) -> Iterator[InProgress]:
    """Yield the attempts of a registry, by id."""
    names = sorted(os.listdir(registry.attempts)) if registry.attempts.is_dir() else ()
    for id in filter(ID.fullmatch, names):
        attempt = Attempt(registry.attempt(id))
        yield InProgress(id, attempt.name(), attempt.progress(), lease.holder(registry.lease(id)),
                         bool(attempt.problems()))


def _matches(name: str, id: str, patterns: Sequence[str]) -> bool:
    """Tell whether a name matches a pattern, or an id starts with one; without patterns all match."""
    return not patterns or any(fnmatchcase(name, each) or id.startswith(each) for each in patterns)


def runs_json(runs: Sequence[Run]) -> str:
    """Render runs as JSON Lines."""
    return "\n".join(json.dumps({"v": 1, "id": run.id, "name": run.manifest["name"], **_facts(run)}) for run in runs)


def runs_text(runs: Sequence[Run]) -> str:
    """Render runs as a table."""
    if not runs:
        return "no runs yet"
    wide = max(len(run.manifest["name"]) for run in runs)
    lines = [f"{'id':12}  {'name':{wide}}  overall  epoch  {'parameters':>11}  {'seconds':>9}  {'MB':>8}  finished"]
    for run in runs:
        facts = _facts(run)
        overall = "—" if facts["overall"] is None else f"{facts['overall']:.3f}"
        lines.append(f"{run.id}  {run.manifest['name']:{wide}}  {overall:>7}  {facts['epoch']:5}  "
                     f"{facts['parameters']:11,}  {facts['seconds']:9,.1f}  {facts['megabytes']:8,.1f}  "
                     f"{facts['finished']}")
    return "\n".join(map(clean, lines))


def _facts(run: Run) -> dict[str, Any]:
    """Return the columns of a run in the list, by name."""
    manifest = run.manifest
    return {"overall": manifest["dev"].get("overall"), "epoch": manifest["epoch"], "parameters": manifest["parameters"],
            "seconds": manifest["seconds"], "megabytes": round(run.size() / 1e6, 3),
            "finished": manifest.get("finished", "")}


def run_text(run: Run) -> Iterator[str]:
    """Yield the lines of one run in full: scores by epoch, files, spec. Raise RegistryError where it is damaged."""
    manifest = run.manifest
    environment = {**manifest.get("environment", {}), "peak MB": manifest.get("megabytes", "unknown")}
    yield f"{manifest['name']}  {run.id}  {manifest['what']}"
    yield f"finished {manifest.get('finished', '?')}, {manifest['seconds']:,} s: {_listed(environment)}"
    for split in manifest.get("splits", ()):
        yield f"memory ran out: from step {split['step']} on a batch was computed in {split['parts']} parts"
    dropped = _dropped(manifest["suite"].get("dropped", {}))
    yield f"predictions {run.digest}, data {manifest['suite']['sha256'][:12]}{dropped}"
    yield from ["", "epoch   step  dev scores, then mean losses"]
    for number, line in enumerate(run.read(HISTORY).decode().splitlines(), 1):
        epoch = json.loads(line)
        kept = "*" if number == manifest["epoch"] else " "
        yield f"{number:4}{kept} {epoch['step']:6}  {_listed(epoch['dev'])};  {_listed(epoch['losses'])}"
    yield from ["", *(f"{entry['size']:14,}  {name}" for name, entry in sorted(manifest["files"].items())), ""]
    yield from sorted(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in _flat(manifest["spec"]))


def _listed(values: dict[str, Any]) -> str:
    """Render names and values in one line."""
    return ", ".join(f"{name} {'—' if value is None else f'{value:.4g}' if isinstance(value, float) else value}"
                     for name, value in values.items())


def _dropped(dropped: dict[str, int]) -> str:
    return f", rows dropped: {_listed(dropped)}" if dropped else ""


def _flat(table: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the value of each leaf of nested tables."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield above + key, value


def log(registry: Registry, id: str, follow: bool) -> Iterator[str]:
    """Yield the log of a run, finished or not; with `follow`, continue until its worker has ended.

    Raise RegistryError where the log of a finished run is damaged.
    """
    path = Attempt(registry.attempt(id)).log
    if not path.is_file() and (run := registry.find(id)):
        yield run.read("log.txt").decode(errors="replace")
        return
    with path.open(encoding="utf-8", errors="replace") as file:  # an open file can be read even after it was removed
        while True:
            is_live = lease.holder(registry.lease(id)) is not None
            while text := file.read(1 << 16):
                yield text
            if not (follow and is_live):
                return
            time.sleep(POLL_SECONDS)
