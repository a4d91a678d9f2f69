"""Durable writes, locks and safe names: the only room that writes to disk.

Everything is written beside its target, checked, synced and renamed, so that a reader sees the old file, the new one
or none, and never a part of one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import StorageError

_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,=+@-]{0,127}")


def is_safe_name(name: str) -> bool:
    """Tell whether a name can be a file name on any system: no path, no hidden file, no control character."""
    return bool(_SAFE.fullmatch(name)) and not name.endswith(".")


@contextlib.contextmanager
def reported(what: str, path: Path, size: int | None = None) -> Iterator[None]:
    """Turn the machine's refusal of a read or write into a StorageError that names path and size."""
    try:
        yield
    except OSError as error:
        bytes_ = "" if size is None else f" ({size:,} bytes)"
        raise StorageError(f"cannot {what} {path}{bytes_}: {error.strerror or error}") from error


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_new(path: Path, data: bytes) -> None:
    """Write a file inside a folder that nobody else sees yet: length checked and synced, not renamed."""
    with reported("write", path, len(data)), path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        if os.fstat(file.fileno()).st_size != len(data):
            raise OSError("the file is shorter than what was written")


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file as a whole: written beside it, synced, renamed onto it."""
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with reported("write", path, len(data)):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_new(beside, data)
            os.replace(beside, path)
            sync_folder(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def json_bytes(value: Any) -> bytes:
    """Return a value as indented JSON with sorted keys: the same value is the same bytes."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes as hex digits."""
    with reported("read", path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove(folder: Path) -> None:
    """Remove a folder and all in it; nothing happens where it does not exist."""
    if folder.exists():
        with reported("remove", folder):
            shutil.rmtree(folder)


@contextlib.contextmanager
def lock(path: Path, wait: bool = False) -> Iterator[bool]:
    """Hold an advisory lock; yields whether it was had. The system frees it when its holder dies."""
    with reported("lock", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            held = True
        except BlockingIOError:
            held = False
        yield held
    finally:
        os.close(descriptor)
