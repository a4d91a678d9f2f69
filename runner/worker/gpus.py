"""GPUs of this machine: their memory and their allocation to leaves."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..machine import query_gpus

MARGIN = 1.2

CONTEXT_MEGABYTES = 800.0
"""GPU memory of a process before its first tensor; it is added to `MARGIN` times the memory of a similar run."""


def query_memory() -> dict[str, float]:
    """Return the megabytes of each visible GPU, by its index or UUID as in CUDA_VISIBLE_DEVICES."""
    return query_gpus("memory.total")


@dataclass
class GpuAllocator:
    """Allocates GPUs to leaves: one leaf per GPU, or as many as fit where their memory is known."""

    sizes: dict[str, float]
    """Megabytes of each GPU."""
    _reserved: dict[str, list[float]] = field(default_factory=dict)

    def select(self, count: int, megabytes: float | None) -> tuple[str, ...] | None:
        """Return GPUs for a leaf, those with most free memory first; None where it has to wait."""
        free = {name: size - sum(self._reserved.get(name, ())) for name, size in self.sizes.items()}
        fitting = [name for name in self.sizes if free[name] >= min(self._megabytes(megabytes, name), self.sizes[name])]
        fitting.sort(key=lambda name: -free[name])
        return tuple(fitting[:count]) if len(fitting) >= count else None

    def allocate(self, names: tuple[str, ...], megabytes: float | None) -> None:
        """Reserve a leaf's memory on GPUs."""
        for name in names:
            self._reserved.setdefault(name, []).append(self._megabytes(megabytes, name))

    def release(self, names: tuple[str, ...], megabytes: float | None) -> None:
        """Release a leaf's memory on GPUs."""
        for name in names:
            self._reserved[name].remove(self._megabytes(megabytes, name))

    def _megabytes(self, megabytes: float | None, name: str) -> float:
        """Return the megabytes reserved for a leaf; the whole GPU where its need is unknown."""
        size = self.sizes[name]
        return size if megabytes is None else min(size, megabytes * MARGIN + CONTEXT_MEGABYTES)
