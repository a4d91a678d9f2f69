"""What tests of build share."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

from runner.registry.manifest import json_with_checksum


def files_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return path


def resigned(files: dict[str, bytes], change: Callable[[dict], None] = lambda record: None) -> dict[str, bytes]:  # type: ignore[type-arg]
    """Return files with a record that fits them, as a forger would write it."""
    record = json.loads(files.pop("bundle.json"))
    del record["sha256"]
    record["files"] = {name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
                       for name, content in files.items()}
    change(record)
    return {**files, "bundle.json": json_with_checksum(record)}
