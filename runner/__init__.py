"""mtrun: a declarative runner for multi-task BERT experiments and for ensembles of them.

In Python: `runner.load(spec)` is a spec to be built, looked at and asked; `runner.table(results)` a leaderboard.
"""

from __future__ import annotations

import sys
from typing import Any

from .old_names import OldNames
from .version import __version__ as __version__

sys.meta_path.append(OldNames())

_NAMES = ("Loaded", "load", "table")


def __getattr__(name: str) -> Any:
    """Return one of the names for notebooks; nothing of them is imported before."""
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import api

    return getattr(api, name)


def __dir__() -> list[str]:
    """Return the names that a notebook completes."""
    return sorted([*globals(), *_NAMES])
