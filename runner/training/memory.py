"""Memory: detection of out-of-memory errors, peak usage, and allocator settings."""

from __future__ import annotations

import contextlib
import ctypes
import resource

import torch


def is_exhausted(error: BaseException) -> bool:
    """Return whether an error is an out-of-memory error, of a device or of this process."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        text in str(error) for text in ("can't allocate memory", "not enough memory", "out of memory"))


def peak(device: torch.device) -> float:
    """Return the peak memory in megabytes, of a GPU or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3  # kilobytes on Linux


def release(device: torch.device) -> None:
    """Empty the CUDA cache, so that smaller blocks can be allocated."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Options of mallopt(3): free memory kept at the top of the heap, and size from which a block is mmapped."""


def keep_freed() -> None:
    """Make glibc keep freed memory for the next step instead of returning it to the system; no-op without glibc.

    A step of MiniLM-L6 frees and allocates some 300 MB, whose pages the system would have to zero again.
    """
    with contextlib.suppress(OSError, AttributeError):
        for option in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
            ctypes.CDLL(None).mallopt(option, 2**31 - 1)
