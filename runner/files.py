"""Durable atomic writes, file locks and safe file names; all other modules write to disk through this one.

A file is written under a temporary name in the same folder, checked, synced and renamed, so that a reader sees the old
file, the new one or none, and never a partial one. Every operation is one call of `os`, so that tests can interrupt
each of them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from .errors import Problem, StorageError

_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,=+@-]{0,127}")

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@lru_cache(maxsize=1000)
def is_safe_name(name: str) -> bool:
    """Return whether a name is a valid file name on any system: no path, no hidden file, no control character."""
    return bool(_SAFE.fullmatch(name)) and not name.endswith(".")


@contextlib.contextmanager
def reported(what: str, path: Path, size: int | None = None) -> Iterator[None]:
    """Convert an OSError in the block into a StorageError that names operation, path and size."""
    try:
        yield
    except OSError as error:
        bytes_ = "" if size is None else f" ({size:,} bytes)"
        raise StorageError(f"cannot {what} {path}{bytes_}: {error.strerror or error}") from error


def as_storage_error(error: Exception) -> StorageError | None:
    """Convert an unhandled OSError, such as of a file or of output; return None for any other error, which is a bug."""
    if isinstance(error, OSError):
        what = f"use {error.filename}" if error.filename is not None else "read or write"
        return StorageError(f"cannot {what}: {error.strerror or error}")
    return None


def sync_folder(path: Path) -> None:
    """Sync a folder's entries to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Create a folder and its missing parents, each synced. Raise StorageError."""
    if path.is_dir():
        return
    if path.is_symlink() and not path.exists():
        raise StorageError(Problem(f"cannot make {path}: it is a link to {os.readlink(path)}, which is not there",
                                   hint="make that folder, or remove the link"))
    make_folder(path.parent)
    with reported("make", path):
        try:
            os.mkdir(path)
        except FileExistsError:
            if not path.is_dir():  # another process may have created it meanwhile
                raise
        sync_folder(path.parent)


def write_new(path: Path, data: bytes) -> None:
    """Create a file: length checked and synced, not renamed. Raise StorageError where it exists or writing fails."""
    with reported("write", path, len(data)), _opened(path, os.O_CREAT | os.O_EXCL) as descriptor:
        _write(descriptor, data)
        os.fsync(descriptor)
        if os.fstat(descriptor).st_size != len(data):
            raise OSError(errno.EIO, "the file is shorter than what was written")


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, os.O_WRONLY | flags, 0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write(descriptor: int, data: bytes) -> None:
    """Write all bytes; a single `os.write` may write only a part of them."""
    remaining = memoryview(data)
    while remaining:
        remaining = remaining[os.write(descriptor, remaining):]


def write_bytes(path: Path, data: bytes) -> None:
    """Write or replace a file atomically: temporary file, sync, rename. Raise StorageError."""
    with replaced(path, len(data)) as temporary:
        write_new(temporary, data)


@contextlib.contextmanager
def replaced(path: Path, size: int | None = None) -> Iterator[Path]:
    """Yield a temporary path, whose synced file is then renamed onto `path`; removed on error. Raise StorageError."""
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with reported("write", path, size):
            yield temporary
            os.replace(temporary, path)
            sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def copy_new(path: Path, chunks: Iterable[bytes]) -> None:
    """Create a file from chunks of bytes: synced, not renamed. Raise StorageError where it exists or writing fails."""
    with reported("write", path), _opened(path, os.O_CREAT | os.O_EXCL) as descriptor:
        for chunk in chunks:
            _write(descriptor, chunk)
        os.fsync(descriptor)


def write_unsynced(path: Path, data: bytes) -> None:
    """Write or replace a small file atomically but not durably; ignore a failed write."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        with _opened(temporary, os.O_CREAT | os.O_TRUNC) as descriptor:
            _write(descriptor, data)
        os.replace(temporary, path)


def overwrite(path: Path, data: bytes) -> None:
    """Overwrite the start of an existing file, which works on a full disk; ignore a failed write."""
    with contextlib.suppress(OSError), _opened(path, 0) as descriptor:
        _write(descriptor, data)


def append(path: Path, text: str) -> None:
    """Append a line to a log; ignore a failed write."""
    with contextlib.suppress(OSError), _opened(path, os.O_CREAT | os.O_APPEND) as descriptor:
        _write(descriptor, f"{text}\n".encode(errors="replace"))


def publish(staged: Path, target: Path) -> bool:
    """Rename a folder to `target` and sync; return False where `target` exists. Raise StorageError."""
    with reported("publish", target):
        sync_folder(staged)
        try:
            os.rename(staged, target)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                return False
            raise
        sync_folder(target.parent)
    return True


def json_bytes(value: Any) -> bytes:
    """Return a value as indented JSON with sorted keys: equal values give equal bytes."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def parse_json(data: bytes | str) -> Any:
    """Parse JSON. Raise ValueError, also where it is nested too deeply."""
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def sha256(path: Path) -> str:
    """Return the sha256 of a file as hex digits. Raise StorageError."""
    with reported("read", path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove(path: Path) -> None:
    """Remove a file or a folder with its content; no-op where there is none. Raise StorageError."""
    with reported("remove", path), contextlib.suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            os.unlink(path)


def lock(path: Path) -> int | None:
    """Return a file descriptor that holds an exclusive lock, or None where another process holds it.

    The system releases the lock when all processes with the descriptor have ended. On a file system without locks the
    descriptor is returned all the same. The holder may unlink the file: the next caller creates it again.
    Raise StorageError.
    """
    make_folder(path.parent)
    while True:
        with reported("lock", path), contextlib.ExitStack() as opened:
            is_mine = True
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            except PermissionError:  # a file of another user, whose umask lets nobody else write
                is_mine, descriptor = False, os.open(path, os.O_RDONLY)
            opened.callback(os.close, descriptor)
            if not try_lock(descriptor):
                return None
            if not is_mine and is_at(descriptor, path):
                path.unlink()  # its user's process is gone: the next turn makes one of one's own
            elif is_at(descriptor, path):
                opened.pop_all()
                return descriptor


def is_at(descriptor: int, path: Path) -> bool:
    """Return whether an open file is still the file at a path."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file for the time of the block, once no other process holds it. Raise StorageError."""
    while (descriptor := lock(path)) is None:
        time.sleep(0.02)
    try:
        yield
    finally:
        os.close(descriptor)


def try_lock(descriptor: int) -> bool:
    """Try to lock an open file; return False where another process holds the lock."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


def write_cache(path: Path, data: bytes) -> None:
    """Write bytes below a line with the sha256 of the file's name and of them; a refused write is ignored.

    So damage is seen, and a file that got the name of another.
    """
    with contextlib.suppress(StorageError):
        write_bytes(path, _seal(path, data) + b"\n" + data)


def read_cache(path: Path) -> bytes | None:
    """Return the bytes of `write_cache`; None where there are none, or others than were written there."""
    with contextlib.suppress(OSError):
        digest, _, data = path.read_bytes().partition(b"\n")
        if digest == _seal(path, data):
            return data
    return None


def _seal(path: Path, data: bytes) -> bytes:
    return hashlib.sha256(path.name.encode() + b"\n" + data).hexdigest().encode()


def open_file(path: Path) -> BinaryIO:
    """Open a regular file for reading; refuse a pipe or a device, which might never end. Raise OSError."""
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return file
