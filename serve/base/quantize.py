"""Turns dense matrices into the packed forms of `weights.py`, and plain quantised rows into their packed layout."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from .weights import BLOCK, GROUP_ROWS, NF4_BLOCK, Int4Weight, Int8Weight, Nf4Weight

# The 16 quantiles of a normal distribution, scaled to [-1, 1] (arXiv 2305.14314, appendix E; bitsandbytes' values).
NF4_LEVELS = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
_LARGEST_HALF = 65504.0


@dataclass(frozen=True, slots=True)
class Int4Rows:
    """Affine 4-bit rows before packing: `q` uint8 [rows, columns], `scale` and `minimum` float16 [rows, blocks]."""

    q: Tensor
    scale: Tensor
    minimum: Tensor


@dataclass(frozen=True, slots=True)
class Int8Rows:
    """Symmetric 8-bit rows before packing: `q` int8 [rows, columns], `scale` float16 [rows, blocks]."""

    q: Tensor
    scale: Tensor


def int4_rows(dense: Tensor) -> Int4Rows:
    """`dense` [rows, columns] rounded to 16 evenly spaced values between the least and the greatest of each block.

    The scale and minimum are rounded to float16 before the values are, so the rounding error of neither is added to
    the values': an element is off by at most half a step, plus what float16 takes off the block's ends.
    """
    blocks = dense.float().reshape(dense.shape[0], -1, BLOCK)
    _check_range(blocks)
    low, high = blocks.amin(-1), blocks.amax(-1)
    minimum = low.half()
    scale = ((high - minimum.float()) / 15).half()
    step = scale.float().unsqueeze(-1)
    q = (blocks - minimum.float().unsqueeze(-1)) / torch.where(step == 0, 1.0, step)
    return Int4Rows(q.round().clamp(0, 15).to(torch.uint8).reshape(dense.shape), scale, minimum)


def int8_rows(dense: Tensor) -> Int8Rows:
    """`dense` [rows, columns] rounded to 255 evenly spaced values, symmetric around zero, in each block."""
    blocks = dense.float().reshape(dense.shape[0], -1, BLOCK)
    _check_range(blocks)
    scale = (blocks.abs().amax(-1) / 127).half()
    step = scale.float().unsqueeze(-1)
    q = blocks / torch.where(step == 0, 1.0, step)
    return Int8Rows(q.round().clamp(-127, 127).to(torch.int8).reshape(dense.shape), scale)


def pack_int4(rows: Int4Rows) -> Int4Weight:
    """The same values in the layout that the kernels read; rows are padded with zeros to a multiple of eight."""
    count, columns = rows.q.shape
    q = _grouped(rows.q, BLOCK)  # [groups, 8, blocks, 32]
    groups, _, blocks, _ = q.shape
    # Column 8 c + 4 h + 2 e + j: to group, block, c, e, row, j, h.
    nibbles = q.view(groups, GROUP_ROWS, blocks, 4, 2, 2, 2).permute(0, 2, 3, 5, 1, 6, 4)
    quants = (nibbles[:, :, :, 0] | (nibbles[:, :, :, 1] << 4)).reshape(groups, columns // BLOCK, 4 * BLOCK)
    return Int4Weight(quants.contiguous(), _block_major(rows.scale), _block_major(rows.minimum), count)


def pack_int8(rows: Int8Rows) -> Int8Weight:
    """The same values in the layout that the kernels read; rows are padded with zeros to a multiple of eight."""
    count, columns = rows.q.shape
    q = _grouped(rows.q, BLOCK)
    groups, _, blocks, _ = q.shape
    quants = q.view(groups, GROUP_ROWS, blocks, 16, 2).permute(0, 2, 3, 1, 4)
    return Int8Weight(quants.reshape(groups, columns // BLOCK, 8 * BLOCK).contiguous(), _block_major(rows.scale), count)


def unpack_int4(weight: Int4Weight) -> Int4Rows:
    """The inverse of `pack_int4`."""
    groups, blocks, _ = weight.quants.shape
    packed = weight.quants.view(groups, blocks, 4, GROUP_ROWS, 2, 2)
    nibbles = torch.stack([packed & 15, packed >> 4], dim=-1)  # group, block, c, row, j, h, e
    q = nibbles.permute(0, 3, 1, 2, 5, 6, 4).reshape(groups * GROUP_ROWS, blocks * BLOCK)
    return Int4Rows(q[: weight.rows], _row_major(weight.scales, weight.rows), _row_major(weight.minima, weight.rows))


def unpack_int8(weight: Int8Weight) -> Int8Rows:
    """The inverse of `pack_int8`."""
    groups, blocks, _ = weight.quants.shape
    q = weight.quants.view(groups, blocks, 16, GROUP_ROWS, 2).permute(0, 3, 1, 2, 4)
    q = q.reshape(groups * GROUP_ROWS, blocks * BLOCK)
    return Int8Rows(q[: weight.rows], _row_major(weight.scales, weight.rows))


def nf4_weight(dense: Tensor) -> Nf4Weight:
    """`dense` [rows, columns] in NF4: blocks of 64, absolute maxima kept in float32.

    The same bytes as bitsandbytes' `quantize_4bit`, without importing it: that takes seconds, and on some CPUs it
    tries to fetch kernels from a hub.
    """
    rows, columns = dense.shape
    _check_range(dense)
    blocks = dense.float().reshape(-1, NF4_BLOCK)
    absmax = blocks.abs().amax(-1)
    scaled = (blocks * (1.0 / absmax.clamp(min=1e-38)).unsqueeze(-1)).clamp(-1, 1).reshape(-1)
    levels = nf4_levels()
    codes = torch.bucketize(scaled, (levels[1:] + levels[:-1]) / 2, out_int32=True).to(torch.uint8)
    return Nf4Weight((codes[::2] << 4) | codes[1::2], absmax, levels, rows, columns)


def nf4_levels(device: torch.device | str = "cpu") -> Tensor:
    """float32 [16]."""
    return torch.tensor(NF4_LEVELS, dtype=torch.float32, device=device)


def _check_range(values: Tensor) -> None:
    """Raises ValueError for values that the half-precision scales cannot carry, NaN and infinity among them."""
    if values.numel() and not bool(values.abs().amax() <= _LARGEST_HALF):
        raise ValueError("holds NaN, infinity or values beyond half precision")


def _grouped(q: Tensor, block: int) -> Tensor:
    """[rows, columns] to [groups, 8, blocks, block], with zero rows added at the end."""
    padded = pad(q, (0, 0, 0, -q.shape[0] % GROUP_ROWS))
    return padded.reshape(-1, GROUP_ROWS, q.shape[1] // block, block)


def _block_major(values: Tensor) -> Tensor:
    """[rows, blocks] to [groups, blocks, 8]."""
    padded = pad(values, (0, 0, 0, -values.shape[0] % GROUP_ROWS))
    return padded.reshape(-1, GROUP_ROWS, values.shape[1]).transpose(1, 2).contiguous()


def _row_major(values: Tensor, rows: int) -> Tensor:
    """[groups, blocks, 8] to [rows, blocks]."""
    return values.transpose(1, 2).reshape(-1, values.shape[1])[:rows]
