"""Leases: the right to train a run, held for as long as its holder lives.

A lease is one file. On one machine it is a lock that the system frees when build and worker are dead. For other
machines, where locks may not reach, the file says who holds it and is touched every few seconds; one that was not
touched for a minute is free. A lease only avoids training twice: nothing is wrong without it, and none is ever to be
deleted by a person.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from uuid import uuid4

from ..files import is_at, lock, locked

FRESH_SECONDS = 60.0
"""How long a lease of another machine is respected after its last touch."""

TOUCH_SECONDS = 5.0
"""How often a holder touches its lease."""


@dataclass(frozen=True)
class Holder:
    """A process that holds a lease."""

    host: str
    boot: str
    """Which start of the machine, so that a host that was started again does not take itself for its holder."""
    pid: int


@cache
def _machine() -> tuple[str, str]:
    """Return this machine's name and the id of its last start."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    return socket.gethostname(), boot


@contextlib.contextmanager
def held(path: Path) -> Iterator[int | None]:
    """Hold a lease; yields its descriptor, for a worker to inherit, or None where another holds it.

    Raise StorageError where the file cannot be made.
    """
    descriptor = lock(path)
    if descriptor is None:
        yield None
        return
    mine = json.dumps(asdict(Holder(*_machine(), os.getpid()))).encode()
    is_mine = False
    try:
        if _elsewhere(descriptor, path) is None:
            with contextlib.suppress(OSError):  # a full disk: the lock alone must do
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, mine, 0)
            is_mine = True
        yield descriptor if is_mine else None
    finally:
        if is_mine and is_at(descriptor, path):
            with contextlib.suppress(OSError):
                os.unlink(path)
        os.close(descriptor)


def touch(path: Path) -> None:
    """Show other machines that the holder lives."""
    with contextlib.suppress(OSError):
        os.utime(path)


def holder(path: Path) -> Holder | None:
    """Return who holds a lease, or None where it is free."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        return _elsewhere(descriptor, path) if locked(descriptor) else _read(descriptor)
    finally:
        os.close(descriptor)


def _elsewhere(descriptor: int, path: Path) -> Holder | None:
    """Return the live holder on another machine of a file whose lock was had here."""
    found = _read(descriptor)
    if not found.host or (found.host, found.boot) == _machine():
        return None
    age = _now(path.parent) - os.fstat(descriptor).st_mtime
    return found if age < FRESH_SECONDS else None


def _read(descriptor: int) -> Holder:
    """Return what a lease says; a holder without a name where it says nothing."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Holder(**json.loads(os.pread(descriptor, 1000, 0)))
    return Holder("", "", 0)


def _now(folder: Path) -> float:
    """Return the time of the file system, which may be another machine's; our own where it cannot be written."""
    probe = folder / f".clock.{uuid4().hex[:8]}"
    try:
        descriptor = os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except OSError:
        return time.time()
    try:
        return os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)
        with contextlib.suppress(FileNotFoundError):  # who clears the folder may take it for a dead one's
            os.unlink(probe)
