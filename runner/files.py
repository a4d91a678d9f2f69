"""Durable writes, locks and safe names: the only room that writes to disk.

Everything is written beside its target, checked, synced and renamed, so that a reader sees the old file, the new one
or none, and never a part of one. Every operation is one call of `os`, so that a test can stop at each of them.
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
import uuid
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from .errors import Problem, StorageError

_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,=+@-]{0,127}")

_UNLOCKABLE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@lru_cache(maxsize=1000)
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


def refusal(error: Exception) -> StorageError | None:
    """Return the machine's refusal that an error stands for, such as of a file or of output; None for a bug."""
    if isinstance(error, OSError):
        what = f"use {error.filename}" if error.filename is not None else "read or write"
        return StorageError(f"cannot {what}: {error.strerror or error}")
    return None


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make a folder and those above it that are missing, each durable. Raise StorageError."""
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
            if not path.is_dir():  # another process may just have made it
                raise
        sync_folder(path.parent)


def write_new(path: Path, data: bytes) -> None:
    """Write a file that is not there yet: length checked and synced, not renamed. Raise StorageError."""
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
    """Write all bytes; one call may take a part of them only."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest):]


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file as a whole: written beside it, synced, renamed onto it. Raise StorageError."""
    with replaced(path, len(data)) as beside:
        write_new(beside, data)


@contextlib.contextmanager
def replaced(path: Path, size: int | None = None) -> Iterator[Path]:
    """Give a path for a synced file, which is then renamed onto `path`; an error leaves nothing. Raise StorageError."""
    make_folder(path.parent)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with reported("write", path, size):
            yield beside
            os.replace(beside, path)
            sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise


def copy_new(path: Path, portions: Iterable[bytes]) -> None:
    """Write a file that is not there yet, portion by portion, synced, not renamed. Raise StorageError."""
    with reported("write", path), _opened(path, os.O_CREAT | os.O_EXCL) as descriptor:
        for portion in portions:
            _write(descriptor, portion)
        os.fsync(descriptor)


def post(path: Path, data: bytes) -> None:
    """Show a small file to other processes, whole but not durable; nothing happens where it cannot be written."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        with _opened(beside, os.O_CREAT | os.O_TRUNC) as descriptor:
            _write(descriptor, data)
        os.replace(beside, path)


def overwrite(path: Path, data: bytes) -> None:
    """Write over the start of a file, which needs no room on a full disk; nothing happens where that fails."""
    with contextlib.suppress(OSError), _opened(path, 0) as descriptor:
        _write(descriptor, data)


def append(path: Path, text: str) -> None:
    """Add a line to a log; a log that cannot be written stops nothing."""
    with contextlib.suppress(OSError), _opened(path, os.O_CREAT | os.O_APPEND) as descriptor:
        _write(descriptor, f"{text}\n".encode(errors="replace"))


def publish(staged: Path, target: Path) -> bool:
    """Rename a folder to its place, durably; return False where another one is there already. Raise StorageError."""
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
    """Return a value as indented JSON with sorted keys: the same value is the same bytes."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes as hex digits. Raise StorageError."""
    with reported("read", path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove(path: Path) -> None:
    """Remove a file, or a folder and all in it; nothing happens where there is none. Raise StorageError."""
    with reported("remove", path), contextlib.suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            os.unlink(path)


def lock(path: Path) -> int | None:
    """Return a descriptor that holds a file's lock, or None where another process holds it. Raise StorageError.

    The system frees the lock when all who hold the descriptor are dead. Where the file system has no locks, the
    descriptor alone is returned. Whoever holds the lock may unlink the file: the next one makes it anew.
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
            if not locked(descriptor):
                return None
            if not is_mine and is_at(descriptor, path):
                path.unlink()  # its user's process is gone: the next turn makes one of one's own
            elif is_at(descriptor, path):
                opened.pop_all()
                return descriptor


def is_at(descriptor: int, path: Path) -> bool:
    """Tell whether an open file is still the one at a path."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def locked(descriptor: int) -> bool:
    """Take a lock on an open file if nobody holds it; tell whether it was had."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _UNLOCKABLE:
            raise
    return True


def write_cache(path: Path, data: bytes) -> None:
    """Write bytes below a line with their sha256, so that damage is seen; a refused write is ignored."""
    with contextlib.suppress(StorageError):
        write_bytes(path, hashlib.sha256(data).hexdigest().encode() + b"\n" + data)


def read_cache(path: Path) -> bytes | None:
    """Return the bytes of `write_cache`; None where there are none, or others than were written."""
    with contextlib.suppress(OSError):
        digest, _, data = path.read_bytes().partition(b"\n")
        if digest == hashlib.sha256(data).hexdigest().encode():
            return data
    return None


def open_file(path: Path) -> BinaryIO:
    """Open a regular file for reading; refuse a pipe or a device, which might never end. Raise OSError."""
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return file
