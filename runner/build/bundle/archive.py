"""Archives: many files as one zip or one folder; the same files are the same bytes, and reading one escapes nowhere."""

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
"""Most files of an archive."""

DEPTH = 12
"""Most folders inside one another in an archive, and the file."""

_UTF8 = 0x800
"""The only flag that an entry may have: its name is UTF-8."""

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The only time in an archive: the first that a zip can have."""

Content = bytes | Path
"""What a file of an archive holds: bytes, or the file that they are copied from."""


def is_safe_path(name: str) -> bool:
    """Tell whether a name inside an archive stays below it on any system: safe names, slashes between them."""
    parts = name.split("/")
    return len(parts) <= DEPTH and all(map(is_safe_name, parts))


def write(path: Path, files: Mapping[str, Content]) -> None:
    """Write an archive: a zip where its name ends so, else a folder that is not there yet.

    Nothing is compressed, names are sorted, no times are kept. Raise StorageError, UsageError.
    """
    if path.name.endswith(ENDING):
        with replaced(path) as beside:
            _write_zip(beside, files)
        return
    if os.path.lexists(path):
        raise UsageError(f"{path} is there already; name a new folder, or a file that ends with {ENDING}")
    staged = path.with_name(f".{path.name}.staged")
    remove(staged)
    try:
        for name, content in sorted(files.items()):
            make_folder((staged / name).parent)
            copy_new(staged / name, _portions(content))
        publish(staged, path)
    finally:
        remove(staged)


def _write_zip(path: Path, files: Mapping[str, Content]) -> None:
    """Write a zip and sync it."""
    with open(path, "xb") as file:
        with zipfile.ZipFile(file, "w") as archive:
            for name, content in sorted(files.items()):
                info = zipfile.ZipInfo(name, _EPOCH)
                info.create_system, info.external_attr = 3, 0o100644 << 16  # on any system the same bytes
                info.file_size = size(content)
                with archive.open(info, "w") as entry:
                    for portion in _portions(content):
                        entry.write(portion)
        file.flush()
        os.fsync(file.fileno())


def size(content: Content) -> int:
    """Return the bytes of a file of an archive."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _portions(content: Content) -> Iterator[bytes]:
    """Yield what a file of an archive holds. Raise StorageError."""
    if isinstance(content, bytes):
        yield content
        return
    with reported("read", content), content.open("rb") as file:
        yield from chunks(file)


def chunks(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the bytes of an open file in portions."""
    while portion := file.read(CHUNK):
        yield portion


class Archive(ABC):
    """Files of somebody else's, by name; `sizes` says how long they claim to be."""

    def __init__(self, path: Path, sizes: Mapping[str, int]) -> None:
        self.path, self.sizes = path, sizes
        if len(sizes) > ENTRIES:
            raise self.error(f"it has over {ENTRIES:,} files")
        if wrong := [name for name in sizes if not is_safe_path(name)]:
            raise self.error(f"it has a file of the name {wrong[0]!r}")
        if len({name.lower() for name in sizes}) < len(sizes):
            raise self.error("two of its files have the same name on some systems")

    def error(self, why: str) -> DataError:
        """Return the error of an archive that is not taken."""
        return DataError(Problem("this archive is not taken", Place(str(self.path)), (why,)))

    @abstractmethod
    def open(self, name: str) -> IO[bytes]:
        """Return a file to read from."""

    def read(self, name: str, most: int) -> bytes:
        """Return a whole file of at most so many bytes. Raise DataError."""
        if name not in self.sizes or self.sizes[name] > most:
            raise self.error(f"it has no {name}" if name not in self.sizes else f"{name} is over {most:,} bytes")
        return b"".join(self.chunks(name))

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of a file, never more than it claims to have. Raise DataError."""
        left = self.sizes[name]
        try:
            with self.open(name) as file:
                for portion in chunks(file):
                    left -= len(portion)
                    if left < 0:
                        break
                    yield portion
        except (OSError, zipfile.BadZipFile, EOFError, ValueError, RuntimeError, struct.error) as error:
            raise self.error(f"{name} cannot be read: {error}") from None
        if left:
            raise self.error(f"{name} is not as long as it claims to be")


class _Zip(Archive):
    """A zip without compression, so that no entry can grow."""

    def __init__(self, path: Path, file: zipfile.ZipFile) -> None:
        self.path, self.file = path, file
        entries = file.infolist()
        if not all(one.filename for one in entries):
            raise self.error("it has an entry without a name")
        if any(one.is_dir() or one.compress_type != zipfile.ZIP_STORED or one.flag_bits & ~_UTF8 or
               stat.S_IFMT(one.external_attr >> 16) not in (0, stat.S_IFREG) for one in entries):
            raise self.error("it has entries that are compressed, encrypted, folders or links")
        if len({one.filename for one in entries}) < len(entries):
            raise self.error("it has two files of one name")
        super().__init__(path, {one.filename: one.file_size for one in entries})
        if sum(self.sizes.values()) > path.stat().st_size:
            raise self.error("its entries overlap")

    def open(self, name: str) -> IO[bytes]:
        """Return a file to read from."""
        return self.file.open(name)


class _Folder(Archive):
    """A folder of regular files."""

    def __init__(self, path: Path) -> None:
        sizes = {}
        for folder, below, names in os.walk(path):
            for name in (*below, *names):
                one = Path(folder, name)
                mode = one.lstat().st_mode
                if stat.S_ISREG(mode):
                    sizes[one.relative_to(path).as_posix()] = one.stat().st_size
                elif not stat.S_ISDIR(mode):
                    self.path = path
                    raise self.error(f"{one} is neither a file nor a folder")
        super().__init__(path, sizes)

    def open(self, name: str) -> IO[bytes]:
        """Return a file to read from."""
        return (self.path / name).open("rb")


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """Give an archive to read from. Raise DataError where it is none that can be trusted, StorageError."""
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
