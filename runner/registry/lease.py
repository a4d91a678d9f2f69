"""Leases: exclusive right of one process to train a run, until that process ends.

A lease is a file. On one machine it is a `flock` that the system releases when build and worker have ended. For other
machines, where locks may not apply, the file names its holder and is touched every few seconds; one that was not
touched for a minute is free. Leases only avoid training twice: results are right without them, and nobody has to
delete one by hand.
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

from ..files import is_at, lock, parse_json, try_lock

FRESH_SECONDS = 60.0
"""Age of its last touch up to which a lease of another machine is valid."""

TOUCH_SECONDS = 5.0
"""How often a holder touches its lease."""


@dataclass(frozen=True)
class Holder:
    """A process that holds a lease."""

    host: str
    boot: str
    """Boot id of the machine, so that a lease from before a reboot does not count as its own."""
    pid: int


@cache
def _machine() -> tuple[str, str]:
    """Return this machine's host name and boot id."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    return socket.gethostname(), boot


@contextlib.contextmanager
def held(path: Path) -> Iterator[int | None]:
    """Acquire a lease; yield its file descriptor, for a worker to inherit, or None where another process holds it.

    Raise StorageError where the file cannot be created.
    """
    descriptor = lock(path)
    if descriptor is None:
        yield None
        return
    content = json.dumps(asdict(Holder(*_machine(), os.getpid()))).encode()
    is_acquired = False
    try:
        if _remote_holder(descriptor, path) is None:
            with contextlib.suppress(OSError):  # on a full disk the lock alone has to suffice
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, content, 0)
            is_acquired = True
        yield descriptor if is_acquired else None
    finally:
        if is_acquired and is_at(descriptor, path):
            with contextlib.suppress(OSError):
                os.unlink(path)
        os.close(descriptor)


def touch(path: Path) -> None:
    """Update the time of a lease, which shows other machines that its holder is alive."""
    with contextlib.suppress(OSError):
        os.utime(path)


def holder(path: Path) -> Holder | None:
    """Return the holder of a lease, or None where it is free."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        return _remote_holder(descriptor, path) if try_lock(descriptor) else _read(descriptor)
    finally:
        os.close(descriptor)


def _remote_holder(descriptor: int, path: Path) -> Holder | None:
    """Return the holder on another machine of a file locked here, or None where there is none or it is too old."""
    recorded = _read(descriptor)
    if not recorded.host or (recorded.host, recorded.boot) == _machine():
        return None
    age = _now(path.parent) - os.fstat(descriptor).st_mtime
    return recorded if age < FRESH_SECONDS else None


def _read(descriptor: int) -> Holder:
    """Return the holder recorded in a lease; one with an empty host where none is."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Holder(**parse_json(os.pread(descriptor, 1000, 0)))
    return Holder("", "", 0)


def _now(folder: Path) -> float:
    """Return the time of the file system, which may be a remote one; the local time where it cannot be written."""
    probe = folder / f".clock.{uuid4().hex[:8]}"
    try:
        descriptor = os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except OSError:
        return time.time()
    try:
        return os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)
        with contextlib.suppress(FileNotFoundError):  # another process that cleans the folder may have removed it
            os.unlink(probe)
