"""Memory: when there is too little of it, and how much was used."""

from __future__ import annotations

import resource

import torch


def is_exhausted(error: BaseException) -> bool:
    """Tell whether an error means that memory ran out, on a device or in this process."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        said in str(error) for said in ("can't allocate memory", "not enough memory", "out of memory"))


def peak(device: torch.device) -> float:
    """Return the most megabytes used so far, on a GPU or by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3  # kilobytes on Linux


def release(device: torch.device) -> None:
    """Give back what the allocator keeps, so that smaller pieces find room."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
