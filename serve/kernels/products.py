"""Products of float32 activations with packed weights. The layouts stand in `serve/base/weights.py`.

On a CPU with the C kernels each function is one call into them. Elsewhere torch does the same arithmetic: activations
are rounded to 16 bits a block of 32, products of a block are summed exactly as integers, and blocks are added in order;
what differs is the last bit of fused multiply-adds. Both give a row the same result, bit for bit, at any number of
rows.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .deltas import Deltas, KernelDeltas
from .library import library

BLOCK = 32
ROWS_AT_ONCE = 16
_KINDS = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}


def int4_product(
    x: Tensor,
    quants: Tensor,
    scales: Tensor,
    minima: Tensor,
    rows: int,
    bias: Tensor | None = None,
    deltas: Deltas | None = None,
) -> Tensor:
    """x [m, k] times an int4 matrix [rows, k] transposed, plus `bias` [rows] and `deltas`: float32 [m, rows]."""
    c = library() if x.device.type == "cpu" else None
    if c is None:
        return _with(deltas, x, int4_reference(x, quants, scales, minima, rows, bias), bias)
    x = _float_rows(x, quants.shape[1] * BLOCK)
    y = torch.empty(x.shape[0], rows)
    c.int4_product(
        x.data_ptr(), x.shape[0], x.shape[1], quants.data_ptr(), scales.data_ptr(), minima.data_ptr(), rows,
        _pointer(bias), y.data_ptr(), *_kernel(deltas),
    )  # fmt: skip
    return y


def int8_product(
    x: Tensor, quants: Tensor, scales: Tensor, rows: int, bias: Tensor | None = None, deltas: Deltas | None = None
) -> Tensor:
    """x [m, k] times an int8 matrix [rows, k] transposed, plus `bias` [rows] and `deltas`: float32 [m, rows]."""
    c = library() if x.device.type == "cpu" else None
    if c is None:
        return _with(deltas, x, int8_reference(x, quants, scales, rows, bias), bias)
    x = _float_rows(x, quants.shape[1] * BLOCK)
    y = torch.empty(x.shape[0], rows)
    c.int8_product(
        x.data_ptr(), x.shape[0], x.shape[1], quants.data_ptr(), scales.data_ptr(), rows, _pointer(bias), y.data_ptr(),
        *_kernel(deltas),
    )  # fmt: skip
    return y


def dense_product(x: Tensor, weight: Tensor, bias: Tensor | None = None, deltas: Deltas | None = None) -> Tensor:
    """x [m, k] times `weight` [n, k] transposed, plus `bias` [n] and `deltas`: [m, n].

    float32 on the CPU, the type of the weight on CUDA.
    """
    if x.device.type != "cpu":
        y = F.linear(x.to(weight.dtype), weight, None if bias is None else bias.to(weight.dtype))
        return _with(deltas, x, y, bias)
    c = library()
    if c is None:
        return _with(deltas, x, tiled(lambda tile: F.linear(tile, weight.float(), bias), x), bias)
    weight = weight if weight.dtype in _KINDS else weight.float()
    x, weight = _float_rows(x, weight.shape[1]), weight.contiguous()
    y = torch.empty(x.shape[0], weight.shape[0])
    c.dense_product(
        x.data_ptr(), x.shape[0], x.shape[1], weight.data_ptr(), _KINDS[weight.dtype], weight.shape[0], _pointer(bias),
        y.data_ptr(), *_kernel(deltas),
    )  # fmt: skip
    return y


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """x [m, k] to 16 bits a block of 32: whole numbers as float32 [m, k / 32, 32] and scales [m, k / 32, 1]."""
    blocks = x.float().reshape(x.shape[0], -1, BLOCK)
    scales = blocks.abs().amax(dim=-1, keepdim=True) / 32767.0
    inverse = torch.where(scales > 0, 1.0 / scales, 0.0)
    return torch.round(blocks * inverse), scales


def int4_reference(
    x: Tensor, quants: Tensor, scales: Tensor, minima: Tensor, rows: int, bias: Tensor | None = None
) -> Tensor:
    """What `int4_product` gives, in torch, on any device."""
    groups, blocks, _ = quants.shape
    packed = quants.view(groups, blocks, 4, 8, 2, 2)
    nibbles = torch.stack([packed & 15, packed >> 4], dim=-1)
    codes = nibbles.permute(1, 0, 3, 2, 5, 6, 4).reshape(blocks, groups * 8, BLOCK)
    scale = scales.permute(1, 0, 2).reshape(blocks, 1, -1).float()
    minimum = minima.permute(1, 0, 2).reshape(blocks, 1, -1).float()
    return tiled(lambda tile: _block_sums(tile, codes.float(), scale, minimum)[:, :rows], x, bias)


def int8_reference(x: Tensor, quants: Tensor, scales: Tensor, rows: int, bias: Tensor | None = None) -> Tensor:
    """What `int8_product` gives, in torch, on any device."""
    groups, blocks, _ = quants.shape
    codes = quants.view(groups, blocks, 16, 8, 2).permute(1, 0, 3, 2, 4).reshape(blocks, groups * 8, BLOCK)
    scale = scales.permute(1, 0, 2).reshape(blocks, 1, -1).float()
    return tiled(lambda tile: _block_sums(tile, codes.double(), scale, None)[:, :rows], x, bias)


def _block_sums(x: Tensor, codes: Tensor, scale: Tensor, minimum: Tensor | None) -> Tensor:
    """Sums over blocks, in order. Those inside a block are of whole numbers, exact in the type of `codes`.

    For int4 that is float32: no sum exceeds 32 * 15 * 32767, less than 2 ** 24.
    """
    q, x_scale = quantize_rows(x)
    q, x_scale = q.permute(1, 0, 2), x_scale.permute(1, 0, 2)
    whole = torch.bmm(q.to(codes.dtype), codes.transpose(1, 2)).float()
    sums = x_scale * q.sum(dim=-1, keepdim=True)
    total = torch.zeros(x.shape[0], codes.shape[1], device=x.device)
    for b in range(codes.shape[0]):
        total = total + whole[b] * (scale[b] * x_scale[b])
        if minimum is not None:
            total = total + minimum[b] * sums[b]
    return total


def tiled(product: Callable[[Tensor], Tensor], x: Tensor, bias: Tensor | None = None) -> Tensor:
    """`product` over rows of `x` in tiles of a fixed size.

    Libraries choose their kernel, and so the order of their sums, by the number of rows; a row's result must not depend
    on it.
    """
    m = x.shape[0]
    x = x.float()
    padded = F.pad(x, (0, 0, 0, -m % ROWS_AT_ONCE))
    y = torch.cat([product(tile) for tile in torch.split(padded, ROWS_AT_ONCE)] or [product(padded)])[:m]
    return y if bias is None else y + bias


def _float_rows(x: Tensor, columns: int) -> Tensor:
    """C reads what it is told to read, so a shape that does not fit must not reach it."""
    if x.shape[1] != columns:
        raise ValueError(f"activations of {x.shape[1]} columns meet a weight of {columns}")
    return x.to(torch.float32).contiguous()


def _with(deltas: Deltas | None, x: Tensor, y: Tensor, bias: Tensor | None) -> Tensor:
    return y if deltas is None else deltas.add(x, y, bias)


def _kernel(deltas: Deltas | None) -> tuple[int | None, int]:
    """The last two arguments of a C product."""
    if deltas is None:
        return None, 0
    if not isinstance(deltas, KernelDeltas):
        raise TypeError("a C product takes deltas in the form of the C kernels")
    return deltas.pointer, deltas.site


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
