"""Archives: files in one zip or folder, written reproducibly and read without trust in names and sizes."""

from __future__ import annotations

import os
import stat
import struct
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

from ...errors import DataError, Place, Problem, UsageError
from ...files import copy_new, is_safe_name, make_folder, publish, remove, replaced, reported

ENDING = ".zip"

CHUNK = 1 << 20

ENTRIES = 100_000
"""Maximum number of files in an archive."""

DEPTH = 12
"""Maximum number of components of a path in an archive."""

_UTF8 = 0x800
"""Zip flag of a UTF-8 name, the only flag that an entry may have."""

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""Timestamp of all entries: the earliest that a zip can have."""

Content = bytes | Path
"""Content of a file in an archive: bytes, or the path of the file to copy."""


def is_safe_path(name: str) -> bool:
    """Return whether a name is a relative path of safe file names, which stays inside the archive on any system."""
    parts = name.split("/")
    return len(parts) <= DEPTH and all(map(is_safe_name, parts))


def write(path: Path, files: Mapping[str, Content]) -> None:
    """Write an archive: a zip where `path` ends with `.zip`, else a new folder.

    Entries are uncompressed and sorted by name, with a constant timestamp. Raise StorageError, or UsageError where the
    folder exists.
    """
    if path.name.endswith(ENDING):
        with replaced(path) as temporary:
            _write_zip(temporary, files)
        return
    if os.path.lexists(path):
        raise UsageError(f"{path} is there already; name a new folder, or a file that ends with {ENDING}")
    staged = path.with_name(f".{path.name}.staged")
    remove(staged)
    try:
        for name, content in sorted(files.items()):
            make_folder((staged / name).parent)
            copy_new(staged / name, _chunks_of(content))
        publish(staged, path)
    finally:
        remove(staged)


def _write_zip(path: Path, files: Mapping[str, Content]) -> None:
    """Write a zip and sync it."""
    with open(path, "xb") as file:
        with zipfile.ZipFile(file, "w") as archive:
            for name, content in sorted(files.items()):
                info = zipfile.ZipInfo(name, _EPOCH)
                info.create_system, info.external_attr = 3, 0o100644 << 16  # the same bytes on any system
                info.file_size = size(content)
                with archive.open(info, "w") as entry:
                    for chunk in _chunks_of(content):
                        entry.write(chunk)
        file.flush()
        os.fsync(file.fileno())


def size(content: Content) -> int:
    """Return the size of a file's content in bytes."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _chunks_of(content: Content) -> Iterator[bytes]:
    """Yield a file's content in chunks. Raise StorageError."""
    if isinstance(content, bytes):
        yield content
        return
    with reported("read", content), content.open("rb") as file:
        yield from chunks(file)


def chunks(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the rest of an open file in chunks."""
    while chunk := file.read(CHUNK):
        yield chunk


class Archive(ABC):
    """An untrusted archive to read from; `sizes` are the claimed sizes of its files in bytes, by name."""

    def __init__(self, path: Path, sizes: Mapping[str, int]) -> None:
        self.path, self.sizes = path, sizes
        if len(sizes) > ENTRIES:
            raise self.error(f"it has over {ENTRIES:,} files")
        if wrong := [name for name in sizes if not is_safe_path(name)]:
            raise self.error(f"it has a file of the name {wrong[0]!r}")
        if len({name.lower() for name in sizes}) < len(sizes):
            raise self.error("two of its files have the same name on some systems")

    def error(self, why: str) -> DataError:
        """Return the error for an archive that is rejected."""
        return DataError(Problem("this archive is not taken", Place(str(self.path)), (why,)))

    @abstractmethod
    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading."""

    def read(self, name: str, limit: int) -> bytes:
        """Read a whole file of at most `limit` bytes. Raise DataError."""
        if name not in self.sizes or self.sizes[name] > limit:
            raise self.error(f"it has no {name}" if name not in self.sizes else f"{name} is over {limit:,} bytes")
        return b"".join(self.chunks(name))

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield a file in chunks, at most its claimed size. Raise DataError where its size is another."""
        remaining = self.sizes[name]
        try:
            with self.open(name) as file:
                for chunk in chunks(file):
                    remaining -= len(chunk)
                    if remaining < 0:
                        break
                    yield chunk
        except (OSError, zipfile.BadZipFile, EOFError, ValueError, RuntimeError, struct.error) as error:
            raise self.error(f"{name} cannot be read: {error}") from None
        if remaining:
            raise self.error(f"{name} is not as long as it claims to be")


class _Zip(Archive):
    """An uncompressed zip, since compressed entries could expand without bound."""

    def __init__(self, path: Path, file: zipfile.ZipFile) -> None:
        self.path, self.file = path, file
        entries = file.infolist()
        if not all(entry.filename for entry in entries):
            raise self.error("it has an entry without a name")
        if any(entry.is_dir() or entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & ~_UTF8 or
               stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG) for entry in entries):
            raise self.error("it has entries that are compressed, encrypted, folders or links")
        if len({entry.filename for entry in entries}) < len(entries):
            raise self.error("it has two files of one name")
        super().__init__(path, {entry.filename: entry.file_size for entry in entries})
        if sum(self.sizes.values()) > path.stat().st_size:
            raise self.error("its entries overlap")

    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading."""
        return self.file.open(name)


class _Folder(Archive):
    """A folder of regular files."""

    def __init__(self, path: Path) -> None:
        sizes = {}
        for folder, subfolders, names in os.walk(path):
            for name in (*subfolders, *names):
                file = Path(folder, name)
                mode = file.lstat().st_mode
                if stat.S_ISREG(mode):
                    sizes[file.relative_to(path).as_posix()] = file.stat().st_size
                elif not stat.S_ISDIR(mode):
                    self.path = path
                    raise self.error(f"{file} is neither a file nor a folder")
        super().__init__(path, sizes)

    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading."""
        return (self.path / name).open("rb")


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """Open a zip or folder for reading. Raise DataError where it is no valid archive, StorageError."""
    if path.is_dir():
        yield _Folder(path)
        return
    with reported("read", path):
        file = path.open("rb")
    with closing(file):
        try:
            archive = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, EOFError, ValueError, RuntimeError, OverflowError, struct.error) as error:
            raise DataError(Problem("this is no archive", Place(str(path)), (str(error),))) from None
        yield _Zip(path, archive)
