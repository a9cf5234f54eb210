"""The product of activations with a weight, whatever form the weight is kept in."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..kernels import dense_product, int4_product, int8_product
from ..kernels.deltas import Deltas
from .weights import DenseWeight, Int4Weight, Int8Weight, Nf4Weight, Weight


def product(x: Tensor, weight: Weight, bias: Tensor | None = None, deltas: Deltas | None = None) -> Tensor:
    """x [m, columns] times `weight` transposed, plus `bias` [rows] and what adapters add: float32 [m, rows].

    A row of the result depends on that row of `x` alone, bit for bit, at any m (on CUDA: within rounding).
    """
    match weight:
        case Int4Weight():
            if x.device.type != "cpu":
                return _with(deltas, x, _dequantized(x, weight, bias), bias)
            return int4_product(x, weight.quants, weight.scales, weight.minima, weight.rows, bias, deltas)
        case Int8Weight():
            if x.device.type != "cpu":
                return _with(deltas, x, _dequantized(x, weight, bias), bias)
            return int8_product(x, weight.quants, weight.scales, weight.rows, bias, deltas)
        case Nf4Weight():
            if x.device.type == "cuda":
                return _with(deltas, x, _nf4_on_cuda(x, weight, bias), bias)
            return dense_product(x, weight.dequantize(), bias, deltas)
        case DenseWeight():
            return dense_product(x, weight.tensor, bias, deltas).float()


def _with(deltas: Deltas | None, x: Tensor, y: Tensor, bias: Tensor | None) -> Tensor:
    return y if deltas is None else deltas.add(x, y, bias)


def _dequantized(x: Tensor, weight: Int4Weight | Int8Weight, bias: Tensor | None) -> Tensor:
    matrix = weight.dequantize().to(torch.bfloat16)
    y = F.linear(x.to(torch.bfloat16), matrix).float()
    return y if bias is None else y + bias


def _nf4_on_cuda(x: Tensor, weight: Nf4Weight, bias: Tensor | None) -> Tensor:
    """bitsandbytes' own kernels, which dequantise inside the product."""
    from bitsandbytes import matmul_4bit
    from bitsandbytes.functional import QuantState

    state = QuantState(
        absmax=weight.absmax,
        shape=torch.Size((weight.rows, weight.columns)),
        code=weight.levels,
        blocksize=64,
        quant_type="nf4",
        dtype=torch.bfloat16,
    )
    y: Tensor = matmul_4bit(x.to(torch.bfloat16), weight.quants.reshape(-1, 1).t(), state).float()
    return y if bias is None else y + bias
