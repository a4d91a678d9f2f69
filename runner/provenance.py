"""The code that a run is made by, file by file, so that a change of it can be told."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from . import parts
from .files import sha256
from .registry import Run
from .spec import Model, Souped

CORE = ("batches", "checkpoints", "evaluate", "layers", "layout", "network", "operations", "ranks", "scores",
        "tokens", "train", "words")
"""Modules, besides the parts, that decide what training computes."""
OF_STUDENTS = ("distillation", "teaching")
OF_SOUPS = ("souping",)
OF_STARTED = ("starting",)
"""Those that decide besides what such leaves are."""


def fingerprints(model: Model) -> dict[str, str]:
    """Return the hash of every file whose code decides a run, such as `heads/cosine.py` and `train.py`."""
    modules = CORE + OF_STUDENTS * (model.teacher is not None) + OF_SOUPS * isinstance(model, Souped)
    modules += OF_STARTED * (model.start is not None)
    return parts.fingerprints(model) | {f"{name}.py": _of_module(name) for name in modules}


def older(run: Run, model: Model) -> tuple[str, ...]:
    """Return the files that changed since a run was trained; those of suites show in the data's hash."""
    source = run.manifest.get("source", {})
    return tuple(file for file, code in fingerprints(model).items()
                 if not file.startswith("suites/") and source.get(file, code) != code)


@cache
def _of_module(name: str) -> str:
    return sha256(Path(__file__).with_name(f"{name}.py"))[:12]
