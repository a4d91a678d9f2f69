"""Deferred import: `import torch` that costs nothing until torch is used."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

SLOW = ("torch", "numpy")
"""Modules that a part's file may import at its top without making the reading of a spec slow."""


class _Deferred(ModuleType):
    """Stand in for a slow module until one of its attributes is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__path__":  # `inspect` asks every module for its `__file__`
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        value = getattr(importlib.import_module(self.__name__), name)
        setattr(self, name, value)
        return value


@contextmanager
def deferred(*names: str) -> Iterator[None]:
    """Let `import torch` inside cost nothing until torch is used, so that reading a spec stays quick."""
    stand_ins = {name: _Deferred(name) for name in names if name not in sys.modules}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name, module in stand_ins.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
