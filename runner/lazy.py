"""Deferred imports: `import torch` takes no time until torch is used."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

SLOW = ("torch", "numpy")
"""Modules whose import at the top of a part's file is deferred while specs are read."""


class _Deferred(ModuleType):
    """Placeholder that imports the module at the first access to one of its attributes."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__path__":  # `inspect` reads `__file__` of every module
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        value = getattr(importlib.import_module(self.__name__), name)
        setattr(self, name, value)
        return value


@contextmanager
def deferred(*names: str) -> Iterator[None]:
    """Defer imports of these modules in the block until they are used."""
    placeholders = {name: _Deferred(name) for name in names if name not in sys.modules}
    sys.modules.update(placeholders)
    try:
        yield
    finally:
        for name, module in placeholders.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
