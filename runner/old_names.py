"""Import modules by the names that they had in mtrun 0.1, with a warning; this file goes with the next version."""

from __future__ import annotations

import importlib
import os
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

FAMILIES = ("heads", "losses", "combiners", "optimizers", "schedules", "regularizers", "encoders", "ensembles",
            "suites")
RENAMED = {
    **dict.fromkeys((*FAMILIES, "predictions"), "parts"),
    "bundles": "build.bundle.bundle", "executors": "worker.executors",
    "loader": "specs.loader", "scores": "tasks.metrics", "spec": "specs.spec",
    "tokens": "parts.encoders.bert.tokenizer",
}


def warn_of_old_name(old: str, new: str) -> None:
    """Warn whoever called the caller that a name has changed."""
    import warnings

    warnings.warn(f"`{old}` is now `{new}`; the old name goes with the next version", FutureWarning, stacklevel=3)


class OldNames:
    """Finds `runner.heads` and the like, and `runner.heads.linear`, where nothing else does."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return what loads a module of an old name; None for every other."""
        home = _home(name)
        if not home:
            return None
        warn_of_old_name(name, home)
        return ModuleSpec(name, self, is_package=name.count(".") == 1)  # type: ignore[arg-type] # no base: 4 ms

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return a module whose names are those of the new one."""
        return _Renamed(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: names are looked up when they are used."""


class _Renamed(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(importlib.import_module(_home(self.__name__)), name)


def _home(name: str) -> str:
    """Return the present name of a module; empty for one that was not renamed."""
    package, _, rest = name.partition(".")
    family, _, part = rest.partition(".")
    if package != "runner" or family not in RENAMED:
        return ""
    if not part:
        return f"runner.{RENAMED[family]}"
    folder = "worker/executors" if family == "executors" else f"parts/{family}"
    exists = os.path.exists(os.path.join(os.path.dirname(__file__), folder, f"{part}.py"))
    return f"runner.{folder.replace('/', '.')}.{part}" if exists else ""
