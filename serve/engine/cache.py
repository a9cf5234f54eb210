"""The memory that holds keys and values: one pair of tensors a layer, parted into blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class CacheShape:
    """What one token costs: layers, key/value heads and their size, and the element type."""

    layers: int
    kv_heads: int
    head_dim: int
    dtype: torch.dtype

    def block_bytes(self, block_size: int) -> int:
        """Bytes of one block over all layers, keys and values."""
        return 2 * self.layers * self.kv_heads * self.head_dim * block_size * self.dtype.itemsize


class KVCache:
    """Keys and values of all layers, each a tensor [blocks, kv_heads, block_size, head_dim], allocated once.

    What all layers keep of a block lies side by side, so that memory comes into use block by block.
    """

    def __init__(self, shape: CacheShape, blocks: int, block_size: int, device: torch.device) -> None:
        self.shape, self.blocks, self.block_size = shape, blocks, block_size
        size = (blocks, shape.layers, 2, shape.kv_heads, block_size, shape.head_dim)
        self._memory = _zeros(size, shape.dtype, device)
        self._layers = [(self._memory[:, i, 0], self._memory[:, i, 1]) for i in range(shape.layers)]

    @property
    def nbytes(self) -> int:
        return self._memory.nbytes

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        """Keys and values of one layer."""
        return self._layers[index]


def _zeros(size: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros; on a CPU the system gives each page only when it is written, so an idle pool costs nothing."""
    if device.type != "cpu":
        return torch.zeros(size, dtype=dtype, device=device)
    count = math.prod(size) * dtype.itemsize
    return torch.from_numpy(np.zeros(count, dtype=np.uint8)).view(dtype).view(size)
