"""GPUs of this machine: which there are, and which leaf is on which."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..machine import queried

MARGIN = 1.2

CONTEXT_MEGABYTES = 800.0
"""A leaf is given a fifth more than a run like it took, and what a process takes before its first tensor."""


def found() -> dict[str, float]:
    """Return the megabytes of each GPU that may be used, by the name that CUDA_VISIBLE_DEVICES knows it by."""
    return queried("memory.total")


@dataclass
class GpuAllocator:
    """Gives GPUs to leaves: one leaf a GPU, or as many as fit where their memory is known."""

    sizes: dict[str, float]
    """Megabytes of each GPU."""
    _taken: dict[str, list[float]] = field(default_factory=dict)

    def room(self, count: int, megabytes: float | None) -> tuple[str, ...] | None:
        """Return the GPUs for a leaf, the emptiest first; None where it has to wait."""
        free = {name: size - sum(self._taken.get(name, ())) for name, size in self.sizes.items()}
        fitting = [name for name in self.sizes if free[name] >= min(self._share(megabytes, name), self.sizes[name])]
        fitting.sort(key=lambda name: -free[name])
        return tuple(fitting[:count]) if len(fitting) >= count else None

    def take(self, names: tuple[str, ...], megabytes: float | None) -> None:
        """Note that a leaf is on some GPUs."""
        for name in names:
            self._taken.setdefault(name, []).append(self._share(megabytes, name))

    def leave(self, names: tuple[str, ...], megabytes: float | None) -> None:
        """Note that a leaf is gone."""
        for name in names:
            self._taken[name].remove(self._share(megabytes, name))

    def _share(self, megabytes: float | None, name: str) -> float:
        """Return the megabytes that are kept for a leaf; all of them where nobody knows what it takes."""
        size = self.sizes[name]
        return size if megabytes is None else min(size, megabytes * MARGIN + CONTEXT_MEGABYTES)
