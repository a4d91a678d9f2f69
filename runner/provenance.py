"""The code that a run is made by, file by file, so that a change of it can be told."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from . import parts
from .files import sha256
from .spec import Model

CORE = ("batches", "checkpoints", "evaluate", "layers", "layout", "network", "scores", "tokens", "train")
"""Modules, besides the parts, that decide what training computes."""


def fingerprints(model: Model) -> dict[str, str]:
    """Return the hash of every file whose code decides a run, such as `heads/cosine.py` and `train.py`."""
    return parts.fingerprints(model) | _core()


@cache
def _core() -> dict[str, str]:
    return {f"{name}.py": sha256(Path(__file__).with_name(f"{name}.py"))[:12] for name in CORE}
