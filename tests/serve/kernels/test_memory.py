"""Tensors side by side in one stretch of memory."""

from __future__ import annotations

import gc

import pytest
import torch

from tunechat.serve.kernels.memory import ALIGNMENT, Arena, aligned


def test_copies_lie_one_after_another_on_aligned_addresses() -> None:
    tensors = [torch.arange(n, dtype=dtype) for n, dtype in ((5, torch.int8), (100, torch.float16), (3, torch.float32))]
    arena = Arena(sum(aligned(tensor.nbytes) for tensor in tensors))
    copies = [arena.keep(tensor) for tensor in tensors]
    for tensor, copy in zip(tensors, copies, strict=True):
        assert torch.equal(tensor, copy)
        assert copy.data_ptr() % ALIGNMENT == 0
    assert [copy.data_ptr() - copies[0].data_ptr() for copy in copies] == [0, 64, 320]


def test_tensors_outlive_the_arena() -> None:
    kept = Arena(4096).keep(torch.arange(1000, dtype=torch.float32))
    gc.collect()
    assert torch.equal(kept, torch.arange(1000, dtype=torch.float32))


def test_what_does_not_fit_is_refused() -> None:
    arena = Arena(aligned(100))
    arena.keep(torch.zeros(100, dtype=torch.int8))
    with pytest.raises(ValueError, match="1 bytes do not fit into the 0"):
        arena.keep(torch.zeros(1, dtype=torch.int8))
