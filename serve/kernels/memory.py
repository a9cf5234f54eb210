"""Memory for weights that are read again and again from end to end."""

from __future__ import annotations

import mmap

import torch
from torch import Tensor

ALIGNMENT = 64
_HUGE_PAGE = 2 << 20


class Arena:
    """One stretch of zeroed memory, of huge pages where the system gives them; tensors taken from it keep it alive.

    Reading much of it from end to end then costs few look-ups of addresses.
    """

    def __init__(self, nbytes: int) -> None:
        memory = mmap.mmap(-1, nbytes + _HUGE_PAGE)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            memory.madvise(mmap.MADV_HUGEPAGE)
        whole = torch.frombuffer(memory, dtype=torch.uint8)
        self._free = whole[-whole.data_ptr() % _HUGE_PAGE :][:nbytes]

    def keep(self, tensor: Tensor) -> Tensor:
        """A copy of `tensor` in this memory. Raises ValueError when there is no room left."""
        size = tensor.nbytes
        if size > len(self._free):
            raise ValueError(f"{size} bytes do not fit into the {len(self._free)} that are left")
        copy = self._free[:size].view(tensor.dtype).view(tensor.shape)
        copy.copy_(tensor)
        self._free = self._free[aligned(size) :]
        return copy


def aligned(nbytes: int) -> int:
    """What a tensor of so many bytes takes in an arena."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
