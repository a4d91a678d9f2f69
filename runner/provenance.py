"""The code that a run is made by, file by file, so that a change of it can be told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from . import parts
from .files import sha256
from .parts import code_hash, fingerprint
from .registry import Run
from .spec import Model, Souped

CORE = ("batches", "checkpoints", "evaluate", "layers", "layout", "masking", "network", "operations", "ranks", "scores",
        "tokens", "train", "words")
"""Modules, besides the parts, that decide what training computes."""
OF_STUDENTS = ("distillation", "teaching")
OF_SOUPS = ("crossfit", "souping")
OF_STARTED = ("starting",)
"""Those that decide besides what such leaves are."""
KNOWN = Path(__file__).with_name("known_sources.json")
"""Older sources of mtrun's own files: file -> first 12 hex digits of the sha256 of its text -> hash of its code.

Manifests of mtrun 0.1 hold hashes of texts; by this table a run of them whose code is the present one is not stale.
"""


def sources(model: Model) -> dict[str, Path]:
    """Return every file whose code decides a run, such as `heads/cosine.py` and `train.py`, with its path."""
    modules = CORE + OF_STUDENTS * (model.teacher is not None) + OF_SOUPS * isinstance(model, Souped)
    modules += OF_STARTED * (model.start is not None)
    return parts.sources(model) | {f"{name}.py": Path(__file__).with_name(f"{name}.py") for name in modules}


def fingerprints(model: Model) -> dict[str, str]:
    """Return the fingerprint of each of a model's `sources`."""
    return {file: fingerprint(path) for file, path in sources(model).items()}


def older(run: Run, model: Model) -> tuple[str, ...]:
    """Return the files whose code changed since a run was trained; that of suites shows in the data's hash.

    A file that its manifest does not name is taken for unchanged.
    """
    return tuple(file for file in changed(run.manifest.get("source", {}), model) if not file.startswith("suites/"))


def changed(recorded: Mapping[str, str], model: Model) -> list[str]:
    """Return the files whose code is another than that of the recorded fingerprints; of mtrun 0.1 these are texts."""
    def is_same(file: str, path: Path) -> bool:
        text, _, code = recorded[file].partition(".")
        return sha256(path)[:12] == text or code_hash(path) == (code or _known().get(file, {}).get(text))

    return [file for file, path in sources(model).items() if file in recorded and not is_same(file, path)]


@cache
def _known() -> dict[str, dict[str, str]]:
    known: dict[str, dict[str, str]] = json.loads(KNOWN.read_text())
    return known
