"""How much memory training takes."""

from __future__ import annotations

import resource
import sys

import torch


def used_memory(device: torch.device) -> int:
    """The most bytes there were at once: on the device for a GPU, else of this process in RAM, mapped ones included."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on the device or in main memory."""
    # What torch raises for main memory has no class of its own.
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )
