"""A frozen linear layer over a weight in any form, which gradients pass through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .product import product
from .weights import GROUP_ROWS, NF4_BLOCK, Int4Weight, Int8Weight, Nf4Weight, Weight

_DEQUANTISED = 1 << 22  # numbers
_FORMS = {Int4Weight: "int4", Int8Weight: "int8", Nf4Weight: "nf4"}


class Linear4bit(nn.Module):
    """`x @ weight.T + bias` with a weight that never changes: no gradient goes to it, and none of it is in state dicts.

    Takes any leading shape and returns it in the type of `x`. A row of the result depends on that row of `x` alone, bit
    for bit, at any number of rows (on CUDA: within rounding). The CPU products of packed weights round activations to
    8 bits a block of 32 columns; the gradient to the input is that of the exact product, `grad @ dequantize()`.
    """

    def __init__(self, weight: Weight, bias: Tensor | None = None) -> None:
        super().__init__()
        self._template = weight
        for name, tensor in _tensors(weight).items():
            self.register_buffer(f"_{name}", tensor, persistent=False)
        self.register_buffer("bias", bias, persistent=False)
        self.in_features = weight.columns
        self.out_features = weight.rows

    @property
    def weight_form(self) -> str:
        """ "int4", "int8", "nf4" or "dense"."""
        return _FORMS.get(type(self._template), "dense")

    @property
    def packed(self) -> Weight:
        """The weight in its form, on the device of this layer."""
        moved: dict[str, Any] = {name: getattr(self, f"_{name}") for name in _tensors(self._template)}
        return replace(self._template, **moved)

    def dequantize(self) -> Tensor:
        """float32 [out_features, in_features]."""
        return self.packed.dequantize()

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] to [..., out_features]."""
        rows = x.reshape(-1, self.in_features)
        y: Tensor = _FrozenProduct.apply(rows, self.packed, self.bias)  # type: ignore[no-untyped-call]
        return y.reshape(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, form={self.weight_form}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Linear4bit:
        """Moves between devices, but keeps every type: scales and levels in another precision are another weight."""

        def moved(tensor: Tensor) -> Tensor:
            result = fn(tensor)
            return result if result.dtype == tensor.dtype else tensor.to(result.device)

        super()._apply(moved, recurse)  # type: ignore[no-untyped-call]
        return self


class _FrozenProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Weight, bias: Tensor | None) -> Tensor:
        ctx.weight = weight
        return product(x, weight, bias).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None]:
        if not ctx.needs_input_grad[0]:
            return None, None, None
        return _input_gradient(grad.float(), ctx.weight).to(grad.dtype), None, None


def _input_gradient(grad: Tensor, weight: Weight) -> Tensor:
    """`grad @ weight` [m, columns], of which only a slice is dequantised at a time: a head alone may be gigabytes."""
    rows = max(GROUP_ROWS, _DEQUANTISED // weight.columns // GROUP_ROWS * GROUP_ROWS)
    if weight.rows <= rows or (isinstance(weight, Nf4Weight) and weight.columns % NF4_BLOCK):
        return grad @ weight.dequantize()
    total = grad.new_zeros(grad.shape[0], weight.columns)
    for start in range(0, weight.rows, rows):
        stop = min(start + rows, weight.rows)
        total.addmm_(grad[:, start:stop], weight.row_slice(start, stop).dequantize())
    return total


def _tensors(weight: Weight) -> dict[str, Tensor]:
    return {f.name: value for f in fields(weight) if isinstance(value := getattr(weight, f.name), Tensor)}
