"""Content ids of runs, and fingerprints of the code that trained them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ..files import sha256
from ..parts import discovery
from ..parts.discovery import code_hash, fingerprint
from ..parts.ensembles import Ensemble
from ..registry.registry import Run
from ..tasks.predictions import Predictions
from .spec import Model, SoupModel

SCHEME = 1
"""Version of the meaning of ids; a new one changes all ids."""


def content_id(content: Any) -> str:
    """Return the first 12 hex digits of the sha256 of canonical JSON."""
    text = json.dumps({"scheme": SCHEME, **content}, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def leaf_id(model: Model, suite: str, project: Path) -> str:
    """Return the id of a leaf: hash of its resolved spec, its suite's content and its input files."""
    inputs = model.inputs(project)
    return content_id({"kind": "model", "spec": model.canonical(), "suite": suite, "inputs": inputs})


def tree_id(ensemble: Ensemble, members: Sequence[str]) -> str:
    """Return the id of an ensemble: hash of its own options and of its members' ids."""
    return content_id({"kind": "ensemble", "spec": ensemble.canonical(), "members": ensemble.signature(members)})


def filed_id(predictions: Predictions, suite: str) -> str:
    """Return the id of a predictions file: hash of what it says and of the suite's content."""
    sha256 = hashlib.sha256(predictions.to_bytes()).hexdigest()
    return content_id({"kind": "predictions", "sha256": sha256, "suite": suite})


ROOT = Path(__file__).parents[1]
PACKAGES = ("training", "parts/encoders/bert")
"""Packages whose files all decide what training computes."""
FILES = ("tasks/metrics.py", "tasks/metric_types.py")
"""Further files that decide it."""
ONLY: dict[str, Callable[[Model], bool]] = {
    "training/distillation.py": lambda model: model.teacher is not None,
    "training/soup.py": lambda model: isinstance(model, SoupModel),
    "tasks/folds.py": lambda model: isinstance(model, SoupModel),
    "training/stored_model.py": lambda model: bool(model.start or model.teacher) or isinstance(model, SoupModel),
}
"""Files that decide it for some leaves only."""
KNOWN = Path(__file__).with_name("known_sources.json")
"""Files whose code was elsewhere in mtrun 0.1: file -> hash of its `code`, and hashes that runs recorded `before`.

A run with these was trained by the same code, as long as the file's code has not changed since then.
"""


def sources(model: Model) -> dict[str, Path]:
    """Return the paths of all files whose code decides a run, by name, such as `training/trainer.py`."""
    files = [path for package in PACKAGES for path in sorted((ROOT / package).glob("*.py"))]
    paths = {path.relative_to(ROOT).as_posix(): path for path in [*files, *(ROOT / file for file in (*FILES, *ONLY))]}
    core = {file: path for file, path in paths.items() if file not in ONLY or ONLY[file](model)}
    return discovery.sources(model) | core


def fingerprints(model: Model) -> dict[str, str]:
    """Return the fingerprint of each file in a model's `sources`."""
    return {file: fingerprint(path) for file, path in sources(model).items()}


def stale_sources(run: Run, model: Model) -> tuple[str, ...]:
    """Return the files whose code changed since a run was trained, without suites: these change the data's hash.

    A file that the run's manifest does not name counts as unchanged.
    """
    files = changed_sources(run.manifest.get("source", {}), model)
    return tuple(file for file in files if not file.startswith("suites/"))


def changed_sources(recorded: Mapping[str, str], model: Model) -> list[str]:
    """Return the files of a model whose code differs from the recorded fingerprints."""
    return [file for file, path in sources(model).items() if not _is_same(recorded, file, path)]


def _is_same(recorded: Mapping[str, str], file: str, path: Path) -> bool:
    """Tell whether a file's code is that recorded under its name, or under its names in mtrun 0.1."""
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
