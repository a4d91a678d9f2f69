"""GPUs of this machine: which there are, and which leaf is on which."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field

MARGIN = 1.2
CONTEXT_MEGABYTES = 800.0
"""A leaf is given a fifth more than a run like it took, and what a process takes before its first tensor."""


def found() -> dict[str, float]:
    """Return the megabytes of each GPU that may be used, by the name that CUDA_VISIBLE_DEVICES knows it by."""
    return queried("memory.total")


def queried(number: str, every: bool = False) -> dict[str, float]:
    """Return a number that nvidia-smi tells of each GPU that may be used, or of `every` one, by the GPU's name."""
    if not shutil.which("nvidia-smi"):
        return {}
    query = ["nvidia-smi", f"--query-gpu=index,uuid,{number}", "--format=csv,noheader,nounits"]
    said = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    rows = [[cell.strip() for cell in line.split(",")] for line in said.splitlines()]
    rows = [row for row in rows if len(row) == 3 and row[2].replace(".", "", 1).isdecimal()]
    visible = None if every else os.environ.get("CUDA_VISIBLE_DEVICES")
    numbers = {name: float(row[2]) for row in rows for name in row[:2]}
    names = [row[0] for row in rows] if visible is None else visible.split(",")
    return {name: numbers[name] for name in names if name in numbers}


@dataclass
class Devices:
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
