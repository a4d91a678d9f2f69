"""Manifests: metadata of a finished run, as JSON whose last key is the sha256 of all bytes above it.

To check one by hand: `head -n -2 manifest.json | sha256sum`.
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
"""Maximum bytes of a manifest."""

_CHECKSUM = re.compile(rb'(,\n) "sha256": "([0-9a-f]{64})"\n}\n\Z')


class _Split(BaseModel):
    """Parts that a batch was computed in from a step on."""

    step: int
    parts: int


class _Train(BaseModel):
    """Keys of a run's training that scoring reads."""

    select: str
    tasks: list[str] | None = None


class _Spec(BaseModel):
    """Tables of a run's spec that are read before it is made a model again."""

    train: _Train
    heads: dict[str, Any] = {}
    suite: dict[str, Any] = {}


class _Suite(BaseModel):
    """The suite's content."""

    sha256: str
    dropped: dict[str, int] = {}


class _Manifest(BaseModel):
    """The keys of a manifest that are read anywhere; those with a default may be missing."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    format: int
    id: str
    name: str
    what: str
    files: dict[str, dict[str, int | str]]
    spec: _Spec
    suite: _Suite
    dev: dict[str, float | None]
    epoch: int
    parameters: int
    seconds: float
    inputs: dict[str, str] = {}
    source: dict[str, str] = {}
    environment: dict[str, str | int] = {}
    made_of: dict[str, str | None] = {}
    refits: list[int] = []
    splits: list[_Split] = []
    megabytes: float | None = None
    inference: float | None = None
    finished: str = ""


def json_with_checksum(values: Mapping[str, Any]) -> bytes:
    """Return JSON whose last key, `sha256`, is the hash of all bytes above it."""
    above = json_bytes(values).removesuffix(b"\n}\n") + b",\n"
    return above + f' "sha256": "{hashlib.sha256(above).hexdigest()}"\n}}\n'.encode()


def parse_manifest(data: bytes) -> dict[str, Any]:
    """Verify and parse a manifest, `sha256` included. Raise ValueError for any damage."""
    match = _CHECKSUM.search(data, max(0, len(data) - 100))
    if not match or hashlib.sha256(data[: match.end(1)]).hexdigest().encode() != match[2]:
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


def read_start(path: str) -> bytes:
    """Read at most `LIMIT` bytes of a file. Raise ValueError where it is not a regular file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # opening a pipe would block
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is no regular file")
        return os.read(descriptor, min(os.fstat(descriptor).st_size, LIMIT))
    finally:
        os.close(descriptor)
