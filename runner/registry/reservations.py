"""Reservations: ids of the runs that running commands need, which other processes must not remove.

    registry/.builds/<name>.lock    lease of a running command
    registry/.builds/<name>.json    the ids that it needs; without this file it may need any run
    registry/.builds/removal.lock   lease of a process that removes runs or creates a reservation

A process that removes runs holds `removal`, reads all reservations and removes only runs that none of them contains. A
command that needs runs holds it while it creates its own reservation, and looks for runs only afterwards. So the runs
that a command finds stay until it ends, and a reservation ends with its process in any case. The reservation of a
detached build (`--detach`) has no lease: it stays until a later build has trained all of its runs, or none of its runs
and attempts is left.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import StorageError
from ..files import parse_json, remove, write_bytes, write_unsynced
from . import lease as leases
from .registry import Registry

FOLDER = ".builds"

WAIT_SECONDS = 0.02
"""Interval at which the lease `removal` is tried."""


@dataclass
class Reservation:
    """Runs that this process needs."""

    registry: Registry
    name: str = ""
    """Empty where the registry cannot be written, so that no process can remove anything either."""
    ids: frozenset[str] = frozenset()

    def hold(self, ids: Iterable[str]) -> None:
        """Reserve exactly these ids, whether or not their runs exist."""
        self.ids = frozenset(ids)
        if self.name:
            write_unsynced(_path(self.registry, f"{self.name}.json"), json.dumps({"ids": sorted(self.ids)}).encode())

    def detach(self) -> None:
        """Keep the reservation after the process has ended, for a detached build. Raise StorageError."""
        name, self.name = self.name or uuid.uuid4().hex, ""
        content = {"ids": sorted(self.ids), "detached": True}
        write_bytes(_path(self.registry, f"{name}.json"), json.dumps(content).encode())

    def clear_detached(self) -> None:
        """Remove the reservations of detached builds all of whose ids this one contains."""
        for reservation in read_reservations(self.registry):
            if reservation.is_detached and reservation.ids <= self.ids:
                remove(_path(self.registry, f"{reservation.name}.json"))


@dataclass(frozen=True)
class StoredReservation:
    """A reservation as read from the registry: of a process or of a detached build."""

    name: str
    ids: frozenset[str]
    is_any: bool = False
    """Whether it may need any run, since it has not written its ids yet."""
    is_detached: bool = False
    holder: leases.Holder | None = None

    def __str__(self) -> str:
        if self.is_detached:
            return "a build that left its leaves to an engine"
        return f"process {self.holder.pid} on {self.holder.host}" if self.holder else "another process"


@dataclass(frozen=True)
class StoredReservations:
    """All reservations in a registry."""

    all: tuple[StoredReservation, ...] = ()
    kept: dict[str, set[str]] = field(default_factory=dict)
    """Ids for which `covering` returned a reservation, by its holder."""

    def __iter__(self) -> Iterator[StoredReservation]:
        return iter(self.all)

    def covering(self, id: str) -> StoredReservation | None:
        """Return the first reservation that contains a run, or None where none does."""
        for reservation in self.all:
            if reservation.is_any or id in reservation.ids:
                self.kept.setdefault(str(reservation), set()).add(id)
                return reservation
        return None

    @property
    def notes(self) -> list[str]:
        """Messages: how many runs are kept for which holder."""
        return [f"{len(ids)} run{'s are' if len(ids) > 1 else ' is'} kept for {holder}"
                for holder, ids in self.kept.items()]


def _path(registry: Registry, name: str) -> Path:
    return registry.root / FOLDER / name


@contextlib.contextmanager
def removal(registry: Registry) -> Iterator[StoredReservations]:
    """Hold the lease `removal`, after waiting for it; yield all reservations. Raise StorageError."""
    while True:
        with leases.held(_path(registry, "removal.lock")) as lease:
            if lease is not None:
                yield read_reservations(registry, clear=True)
                return
        time.sleep(WAIT_SECONDS)


@contextlib.contextmanager
def reserved(registry: Registry) -> Iterator[Reservation]:
    """Keep other processes from removing runs: all runs, or those given to `Reservation.hold`."""
    reservation = Reservation(registry)
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(StorageError), removal(registry):
            while not reservation.name:
                reservation.name = _leased(registry, stack)
        if reservation.name:
            done = threading.Event()
            lease = _path(registry, f"{reservation.name}.lock")
            threading.Thread(target=_keep_touched, args=(lease, done), daemon=True).start()
            stack.callback(done.set)
        try:
            yield reservation
        finally:
            with contextlib.suppress(StorageError):
                remove(_path(registry, f"{reservation.name}.json"))


def _leased(registry: Registry, stack: contextlib.ExitStack) -> str:
    """Return the name of a new reservation, whose lease `stack` holds; empty where another process holds that lease."""
    name = uuid.uuid4().hex
    lease = stack.enter_context(leases.held(_path(registry, f"{name}.lock")))
    return "" if lease is None else name


def _keep_touched(lease: Path, done: threading.Event) -> None:
    """Touch a lease at intervals until `done` is set."""
    while not done.wait(leases.TOUCH_SECONDS):
        leases.touch(lease)


def read_reservations(registry: Registry, clear: bool = False) -> StoredReservations:
    """Return all reservations; with `clear`, remove the files of processes that have ended."""
    folder = registry.root / FOLDER
    with contextlib.suppress(FileNotFoundError):
        names = {path.stem for path in folder.iterdir() if path.suffix in (".lock", ".json") and path.name[0] != "."}
        reservations = {name: _read(registry, name) for name in sorted(names - {"removal"})}
        for name in (name for name, reservation in reservations.items() if clear and reservation is None):
            for path in (*folder.glob(f".{name}.*"), folder / f"{name}.json", folder / f"{name}.lock"):
                remove(path)
        return StoredReservations(tuple(reservation for reservation in reservations.values() if reservation))
    return StoredReservations()


def _read(registry: Registry, name: str) -> StoredReservation | None:
    """Read a reservation; return None where its process has ended."""
    holder = leases.holder(_path(registry, f"{name}.lock"))
    try:
        content = parse_json(_path(registry, f"{name}.json").read_bytes())
        ids, is_detached = frozenset(map(str, content["ids"])), content.get("detached") is True
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return StoredReservation(name, frozenset(), is_any=True, holder=holder) if holder else None
    is_left = is_detached and any(registry.has(id) or registry.attempt(id).exists() for id in ids)
    return StoredReservation(name, ids, is_detached=is_detached, holder=holder) if holder or is_left else None
