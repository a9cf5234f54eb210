"""The forms in which a weight matrix is kept. Each is a view of mapped, read-only memory; none is ever copied whole.

Packed layouts hold output rows in groups of eight, so that a vector of sixteen 16-bit lanes carries two neighbouring
columns of eight rows: a broadcast of two activations then meets eight rows at once, and no sum across a vector is
needed.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

GROUP_ROWS = 8
BLOCK = 32
NF4_BLOCK = 64


@dataclass(frozen=True, slots=True, eq=False)
class Int4Weight:
    """Affine 4-bit: `w = q * scale + minimum`, one scale and minimum a row and block of 32 columns.

    `quants` uint8 [groups, blocks, 128], to be read as 16-bit lanes: lane `16 * c + 2 * r + j` of a block holds, for
    row r of the group, the columns `8 * c + 2 * k + j` in its nibbles k = 0 (lowest) to 3 (c in 0..3, j in 0..1).
    `scales` and `minima` float16 [groups, blocks, 8]. Rows beyond `rows` are zero padding of the last group.
    """

    quants: Tensor
    scales: Tensor
    minima: Tensor
    rows: int

    @property
    def columns(self) -> int:
        return self.quants.shape[1] * BLOCK

    @property
    def nbytes(self) -> int:
        return self.quants.nbytes + self.scales.nbytes + self.minima.nbytes

    def dequantize(self) -> Tensor:
        """float32 [rows, columns]."""
        groups, blocks, _ = self.quants.shape
        packed = self.quants.view(groups, blocks, 4, GROUP_ROWS, 2, 2)
        nibbles = torch.stack([packed & 15, packed >> 4], dim=-1)
        q = nibbles.permute(0, 3, 1, 2, 5, 6, 4).reshape(groups, GROUP_ROWS, blocks, BLOCK).float()
        scale = self.scales.permute(0, 2, 1).unsqueeze(-1).float()
        minimum = self.minima.permute(0, 2, 1).unsqueeze(-1).float()
        return (q * scale + minimum).reshape(groups * GROUP_ROWS, -1)[: self.rows]

    def row_slice(self, start: int, stop: int) -> Int4Weight:
        """Rows start to stop as a view. Both must be multiples of 8 (stop may also be the last row)."""
        first, last = _groups(start, stop, self.rows)
        return Int4Weight(self.quants[first:last], self.scales[first:last], self.minima[first:last], stop - start)


@dataclass(frozen=True, slots=True, eq=False)
class Int8Weight:
    """Symmetric 8-bit: `w = q * scale`, one scale a row and block of 32 columns.

    `quants` int8 [groups, blocks, 256]: byte `16 * c + 2 * r + j` of a block is row r of the group, column `2 * c + j`
    (c in 0..15, j in 0..1). `scales` float16 [groups, blocks, 8].
    """

    quants: Tensor
    scales: Tensor
    rows: int

    @property
    def columns(self) -> int:
        return self.quants.shape[1] * BLOCK

    @property
    def nbytes(self) -> int:
        return self.quants.nbytes + self.scales.nbytes

    def dequantize(self) -> Tensor:
        """float32 [rows, columns]."""
        return self.lookup(torch.arange(self.rows, device=self.quants.device))

    def lookup(self, indices: Tensor) -> Tensor:
        """Rows `indices` (int64 [n]), dequantised: float32 [n, columns]."""
        groups, blocks, _ = self.quants.shape
        group, row = indices // GROUP_ROWS, indices % GROUP_ROWS
        q = self.quants.view(groups, blocks, 16, GROUP_ROWS, 2)[group, :, :, row].float()
        scale = self.scales[group, :, row].float()
        return (q.reshape(len(indices), blocks, BLOCK) * scale.unsqueeze(-1)).reshape(len(indices), -1)

    def row_slice(self, start: int, stop: int) -> Int8Weight:
        """Rows start to stop as a view. Both must be multiples of 8 (stop may also be the last row)."""
        first, last = _groups(start, stop, self.rows)
        return Int8Weight(self.quants[first:last], self.scales[first:last], stop - start)


@dataclass(frozen=True, slots=True, eq=False)
class Nf4Weight:
    """bitsandbytes' NF4 (arXiv 2305.14314): 16 quantile levels, one absolute maximum a block of 64 along the columns.

    `quants` uint8 [rows * columns / 2], two values a byte, the first in the high half. `absmax` float32 [rows * columns
    / 64]. `levels` float32 [16].
    """

    quants: Tensor
    absmax: Tensor
    levels: Tensor
    rows: int
    columns: int

    @property
    def nbytes(self) -> int:
        return self.quants.nbytes + self.absmax.nbytes

    def dequantize(self) -> Tensor:
        """float32 [rows, columns]."""
        codes = torch.stack([self.quants >> 4, self.quants & 15], dim=-1).reshape(-1, NF4_BLOCK)
        return (self.levels[codes.long()] * self.absmax.unsqueeze(-1)).reshape(self.rows, self.columns)

    def row_slice(self, start: int, stop: int) -> Nf4Weight:
        """Rows start to stop as a view; columns must be a multiple of 64."""
        if self.columns % NF4_BLOCK:
            raise ValueError("rows of this weight share blocks and cannot be sliced")
        a, b = start * self.columns, stop * self.columns
        return Nf4Weight(
            self.quants[a // 2 : b // 2],
            self.absmax[a // NF4_BLOCK : b // NF4_BLOCK],
            self.levels,
            stop - start,
            self.columns,
        )


@dataclass(frozen=True, slots=True, eq=False)
class DenseWeight:
    """A matrix kept as it came: float32, float16 or bfloat16 [rows, columns]."""

    tensor: Tensor

    @property
    def rows(self) -> int:
        return self.tensor.shape[0]

    @property
    def columns(self) -> int:
        return self.tensor.shape[1]

    @property
    def nbytes(self) -> int:
        return self.tensor.nbytes

    def dequantize(self) -> Tensor:
        """float32 [rows, columns]."""
        return self.tensor.float()

    def lookup(self, indices: Tensor) -> Tensor:
        """Rows `indices` (int64 [n]): float32 [n, columns]."""
        return self.tensor[indices].float()

    def row_slice(self, start: int, stop: int) -> DenseWeight:
        """Rows start to stop as a view."""
        return DenseWeight(self.tensor[start:stop])


Weight = Int4Weight | Int8Weight | Nf4Weight | DenseWeight


def place(weight: Weight, device: torch.device) -> Weight:
    """`weight` on `device`: itself when it is there, so that mapped memory stays mapped."""
    if device.type == "cpu":
        return weight
    tensors: dict[str, Any] = {
        f.name: v.to(device) for f in fields(weight) if isinstance(v := getattr(weight, f.name), Tensor)
    }
    return replace(weight, **tensors)


def _groups(start: int, stop: int, rows: int) -> tuple[int, int]:
    if start % GROUP_ROWS or (stop % GROUP_ROWS and stop != rows):
        raise ValueError(f"rows {start} to {stop} do not fall on groups of {GROUP_ROWS}")
    return start // GROUP_ROWS, -(-stop // GROUP_ROWS)
