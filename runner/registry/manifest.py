"""Manifests: what a finished run says of itself, as JSON whose last line holds the sha256 of all bytes above it.

By hand it is checked with `head -n -2 manifest.json | sha256sum`.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from ..files import is_safe_name, json_bytes

LIMIT = 1 << 22
"""Most bytes of a manifest."""

_SEAL = re.compile(rb'(,\n) "sha256": "([0-9a-f]{64})"\n}\n\Z')


class _Manifest(BaseModel):
    """What every manifest must have for the rest of the house to read it."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    format: int
    id: str
    name: str
    what: str
    files: dict[str, dict[str, int | str]]
    spec: dict[str, Any]
    suite: dict[str, Any]
    dev: dict[str, float | None]
    epoch: int
    parameters: int
    seconds: float


def sealed(manifest: Mapping[str, Any]) -> bytes:
    """Return the bytes of a manifest: its JSON, with the sha256 of all above it as the last line."""
    above = json_bytes(manifest).removesuffix(b"\n}\n") + b",\n"
    return above + f' "sha256": "{hashlib.sha256(above).hexdigest()}"\n}}\n'.encode()


def unsealed(data: bytes) -> dict[str, Any]:
    """Return what the bytes of a manifest say, `sha256` included; raise ValueError for any damage."""
    seal = _SEAL.search(data, max(0, len(data) - 100))
    if not seal or hashlib.sha256(data[: seal.end(1)]).hexdigest().encode() != seal[2]:
        raise ValueError("it is not what was written")
    try:
        manifest: dict[str, Any] = from_json(data, allow_inf_nan=False)  # three times as fast as json.loads
        _Manifest.model_validate(manifest)
        for name, entry in manifest["files"].items():
            if not is_safe_name(name) or type(entry["size"]) is not int or type(entry["sha256"]) is not str:
                raise ValueError(f"its entry of the file {name!r} cannot be meant")
    except (ValidationError, KeyError, RecursionError) as error:
        raise ValueError(f"it is not a manifest ({type(error).__name__})") from None
    return manifest


def start(path: str) -> bytes:
    """Return a file, or its start where it is longer than any manifest. Raise ValueError for what is no file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would be waited for
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is no regular file")
        return os.read(descriptor, min(os.fstat(descriptor).st_size, LIMIT))
    finally:
        os.close(descriptor)
