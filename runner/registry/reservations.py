"""Reservations: what running commands need of a registry, so that nothing of it is removed beside them.

    registry/.builds/<name>.lock    the lease of a command that lives
    registry/.builds/<name>.json    the ids that it needs; as long as there are none, it may need any
    registry/.builds/removal.lock   the lease of who removes runs, or is about to need some

Who removes holds `removal`, looks at all reservations, and removes what is in none. Who needs runs holds it too, for
the moment in which its own reservation comes, and then only looks what is there. So what a command finds stays as long
as the command lives, and a reservation ends with its process, however that ends. What a build has left to an engine
(`--detach`) has no lease: it stays until a later build has made all of it, or none of it is there any more.
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
from ..files import post, remove, write_bytes
from . import lease as leases
from .registry import Registry

FOLDER = ".builds"

WAIT_SECONDS = 0.02
"""How often it is tried to be the one who removes."""


@dataclass
class Reservation:
    """What this process needs."""

    registry: Registry
    name: str = ""
    """Empty where the registry cannot be written, so that nobody removes anything either."""
    ids: frozenset[str] = frozenset()

    def hold(self, ids: Iterable[str]) -> None:
        """Need these runs and no others, be they there or not."""
        self.ids = frozenset(ids)
        if self.name:
            post(_path(self.registry, f"{self.name}.json"), json.dumps({"ids": sorted(self.ids)}).encode())

    def leave(self) -> None:
        """Go on needing the runs when the process has ended, since an engine has the work. Raise StorageError."""
        name, self.name = self.name or uuid.uuid4().hex, ""
        content = {"ids": sorted(self.ids), "detached": True}
        write_bytes(_path(self.registry, f"{name}.json"), json.dumps(content).encode())

    def finish(self) -> None:
        """Need no more what an earlier build left to an engine, if all of it was made by this one."""
        for need in needs(self.registry):
            if need.is_detached and need.ids <= self.ids:
                remove(_path(self.registry, f"{need.name}.json"))


@dataclass(frozen=True)
class Need:
    """What another process needs."""

    name: str
    ids: frozenset[str]
    is_any: bool = False
    """Whether it may need any run, since it has not said yet which ones it does."""
    is_detached: bool = False
    holder: leases.Holder | None = None

    def __str__(self) -> str:
        if self.is_detached:
            return "a build that left its leaves to an engine"
        return f"process {self.holder.pid} on {self.holder.host}" if self.holder else "another process"


@dataclass(frozen=True)
class Needs:
    """What all other processes need."""

    all: tuple[Need, ...] = ()
    kept: dict[str, set[str]] = field(default_factory=dict)
    """For whom which ids were asked about and are needed."""

    def __iter__(self) -> Iterator[Need]:
        return iter(self.all)

    def who(self, id: str) -> Need | None:
        """Return one of those who need a run, or None where nobody does."""
        for need in self.all:
            if need.is_any or id in need.ids:
                self.kept.setdefault(str(need), set()).add(id)
                return need
        return None

    @property
    def notes(self) -> list[str]:
        """What was asked about and is needed."""
        return [f"{len(ids)} run{'s are' if len(ids) > 1 else ' is'} kept for {who}" for who, ids in self.kept.items()]


def _path(registry: Registry, name: str) -> Path:
    return registry.root / FOLDER / name


@contextlib.contextmanager
def removal(registry: Registry) -> Iterator[Needs]:
    """Be the only one who removes runs, or comes to need some; give what others need. Raise StorageError."""
    while True:
        with leases.held(_path(registry, "removal.lock")) as lease:
            if lease is not None:
                yield needs(registry, clear=True)
                return
        time.sleep(WAIT_SECONDS)


@contextlib.contextmanager
def reserved(registry: Registry) -> Iterator[Reservation]:
    """Keep runs from being removed by other processes: all of them, or those that the reservation is told to hold."""
    mine = Reservation(registry)
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(StorageError), removal(registry):
            while not mine.name:
                mine.name = _leased(registry, stack)
        if mine.name:
            done = threading.Event()
            lease = _path(registry, f"{mine.name}.lock")
            threading.Thread(target=_touched, args=(lease, done), daemon=True).start()
            stack.callback(done.set)
        try:
            yield mine
        finally:
            with contextlib.suppress(StorageError):
                remove(_path(registry, f"{mine.name}.json"))


def _leased(registry: Registry, stack: contextlib.ExitStack) -> str:
    """Return the name of a new reservation, whose lease `stack` holds; an empty string where another looked at it."""
    name = uuid.uuid4().hex
    lease = stack.enter_context(leases.held(_path(registry, f"{name}.lock")))
    return "" if lease is None else name


def _touched(lease: Path, done: threading.Event) -> None:
    """Show other machines that the process lives."""
    while not done.wait(leases.TOUCH_SECONDS):
        leases.touch(lease)


def needs(registry: Registry, clear: bool = False) -> Needs:
    """Return what processes need now; with `clear`, forget what the dead left."""
    folder = registry.root / FOLDER
    with contextlib.suppress(FileNotFoundError):
        names = {path.stem for path in folder.iterdir() if path.suffix in (".lock", ".json") and path.name[0] != "."}
        found = {name: _need(registry, name) for name in sorted(names - {"removal"})}
        for name in (name for name, need in found.items() if clear and need is None):
            for ending in (".json", ".lock"):
                remove(folder / f"{name}{ending}")
        return Needs(tuple(need for need in found.values() if need))
    return Needs()


def _need(registry: Registry, name: str) -> Need | None:
    """Return what one reservation says, or None where it is of a dead process."""
    holder = leases.holder(_path(registry, f"{name}.lock"))
    try:
        said = json.loads(_path(registry, f"{name}.json").read_bytes())
        ids, is_detached = frozenset(map(str, said["ids"])), said.get("detached") is True
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Need(name, frozenset(), is_any=True, holder=holder) if holder else None
    is_left = is_detached and any(registry.has(id) or registry.attempt(id).exists() for id in ids)
    return Need(name, ids, is_detached=is_detached, holder=holder) if holder or is_left else None
