"""What identifies a run: its content id, and the code that made it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ..files import sha256
from ..parts import discovery
from ..parts.discovery import code_hash, fingerprint
from ..registry.registry import Run
from .spec import Model, SoupModel

SCHEME = 1
"""Raised when the meaning of ids changes."""


def content_id(content: Any) -> str:
    """Return the first 12 hex digits of the sha256 over canonical JSON."""
    text = json.dumps({"scheme": SCHEME, **content}, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def leaf_id(model: Model, suite: str, project: Path) -> str:
    """Return the id of a leaf: its resolved spec, the hash of the suite's content, the pretrained weights."""
    inputs = model.inputs(project)
    return content_id({"kind": "model", "spec": model.canonical(), "suite": suite, "inputs": inputs})


ROOT = Path(__file__).parents[1]
PACKAGES = ("training", "parts/encoders/bert")
"""Packages of which every file decides what training computes."""
FILES = ("tasks/metrics.py",)
"""Files besides that do."""
ONLY: dict[str, Callable[[Model], bool]] = {
    "training/distillation.py": lambda model: model.teacher is not None,
    "training/soup.py": lambda model: isinstance(model, SoupModel),
    "tasks/folds.py": lambda model: isinstance(model, SoupModel),
    "training/stored_model.py": lambda model: bool(model.start or model.teacher) or isinstance(model, SoupModel),
}
"""Files that decide it of some leaves only."""
KNOWN = Path(__file__).with_name("known_sources.json")
"""Files whose code mtrun 0.1 had elsewhere: file -> the hash of its `code`, and the hashes that runs then recorded.

A run with these was trained by the same code, as long as the file's code is what it was when the table was written.
"""


def sources(model: Model) -> dict[str, Path]:
    """Return every file whose code decides a run with its path, such as `training/trainer.py` and `heads/cosine.py`."""
    files = [path for package in PACKAGES for path in sorted((ROOT / package).glob("*.py"))]
    named = {path.relative_to(ROOT).as_posix(): path for path in [*files, *(ROOT / file for file in (*FILES, *ONLY))]}
    core = {file: path for file, path in named.items() if file not in ONLY or ONLY[file](model)}
    return discovery.sources(model) | core


def fingerprints(model: Model) -> dict[str, str]:
    """Return the fingerprint of each of a model's `sources`."""
    return {file: fingerprint(path) for file, path in sources(model).items()}


def older(run: Run, model: Model) -> tuple[str, ...]:
    """Return the files whose code changed since a run was trained; that of suites shows in the data's hash.

    A file that its manifest does not name is taken for unchanged.
    """
    return tuple(file for file in changed(run.manifest.get("source", {}), model) if not file.startswith("suites/"))


def changed(recorded: Mapping[str, str], model: Model) -> list[str]:
    """Return the files of a model whose code is not that of the recorded fingerprints."""
    return [file for file, path in sources(model).items() if not _is_same(recorded, file, path)]


def _is_same(recorded: Mapping[str, str], file: str, path: Path) -> bool:
    """Tell whether a file's code is what was recorded, under its name or those that it had in mtrun 0.1."""
    if recorded.get(file, "").partition(".")[0] == sha256(path)[:12]:
        return True
    code = code_hash(path)
    if recorded.get(file, "").partition(".")[2] == code:
        return True
    known = _known().get(file, {"code": "", "before": {}})
    before = {name: hashes for name, hashes in known["before"].items() if name in recorded}
    if not before:
        return file not in recorded
    return code == known["code"] and all(not {*recorded[name].split(".")}.isdisjoint(hashes)
                                         for name, hashes in before.items())


@cache
def _known() -> dict[str, Any]:
    known: dict[str, Any] = json.loads(KNOWN.read_text())
    return known
