"""Memory: when there is too little of it, how much was used, and that what was freed is used again."""

from __future__ import annotations

import contextlib
import ctypes
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


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""mallopt(3): how much free memory is kept, and from which size on a block is mapped by itself."""


def keep_freed() -> None:
    """Have the C library keep freed memory for the next step instead of asking the system for zeroed pages again.

    A step of MiniLM-L6 frees and asks for some 300 MB. Nothing is done where the C library is not glibc.
    """
    with contextlib.suppress(OSError, AttributeError):
        for option in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
            ctypes.CDLL(None).mallopt(option, 2**31 - 1)
