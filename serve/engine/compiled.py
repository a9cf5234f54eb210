"""The layers of the compact forward as one C call each, where all of their weights have a C kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..base.architecture import Decoder
from ..base.weights import DenseWeight, Int4Weight, Int8Weight
from ..kernels.deltas import KernelDeltas
from ..kernels.layer import DENSE, INT4, INT8, Layer, Matrix, Step, decoder_layer
from ..kernels.library import library
from .cache import KVCache
from .device_batch import DeviceBatch

if TYPE_CHECKING:
    from . import compact

_KINDS = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}


class CompiledLayers:
    """Runs the same operations as `compact.CompactModel`, in the same order: the results are the same bits."""

    def __init__(self, decoder: Decoder, layers: Sequence[compact.Layer], rotations: tuple[Tensor, Tensor]) -> None:
        self._decoder = decoder
        self._cosines, self._sines = rotations
        self._tensors = layers
        self._layers = [_layer(layer) for layer in layers]

    @staticmethod
    def can_run(decoder: Decoder, layers: Sequence[compact.Layer], device: torch.device, cache: torch.dtype) -> bool:
        """Whether there are C kernels for these layers here."""
        projections = [p for layer in layers for p in (layer.qkv, layer.output, layer.gate_up, layer.down)]
        return (
            device.type == "cpu"
            and library() is not None
            and decoder.head_dim % 8 == 0
            and cache in (torch.float32, torch.float16)
            and all(_form(projection) is not None for projection in projections)
        )

    def run(self, hidden: Tensor, batch: DeviceBatch, cache: KVCache) -> Tensor:
        """Passes `hidden` [t, hidden_size] through all layers, in place, but for the last delta, which it gives."""
        d, t = self._decoder, hidden.shape[0]
        widths = (d.hidden_size, d.hidden_size, d.query_size + 2 * d.kv_size, d.query_size)
        delta, normed, qkv, mixed = (torch.empty(t, width) for width in widths)
        gate_up, gated = torch.empty(t, 2 * d.intermediate_size), torch.empty(t, d.intermediate_size)
        keys, _ = cache.layer(0)
        deltas = None if batch.deltas is None else batch.deltas(0)
        if deltas is not None and not isinstance(deltas, KernelDeltas):
            raise TypeError("the compiled layers take deltas in the form of the C kernels")
        step = Step(
            tokens=t, heads=d.heads, kv_heads=d.kv_heads, head_dim=d.head_dim, half=self._cosines.shape[1],
            window=d.sliding_window or 0, cache_kind=_KINDS[keys.dtype], cache_stride=keys.stride(0),
            block_size=keys.shape[2], table_width=batch.block_tables.shape[1], cosines=self._cosines.data_ptr(),
            sines=self._sines.data_ptr(), positions=batch.positions.data_ptr(), sequences=batch.sequences.data_ptr(),
            block_tables=batch.block_tables.data_ptr(), slots=batch.slots.data_ptr(), hidden=hidden.data_ptr(),
            delta=delta.data_ptr(), normed=normed.data_ptr(), qkv=qkv.data_ptr(), mixed=mixed.data_ptr(),
            gate_up=gate_up.data_ptr(), gated=gated.data_ptr(),
            adapters=None if deltas is None else deltas.pointer, eps=d.norm_eps, scale=d.head_dim**-0.5,
        )  # fmt: skip
        for i, layer in enumerate(self._layers):
            decoder_layer(layer, step, *cache.layer(i), i)
        return delta


def _layer(layer: compact.Layer) -> Layer:
    return Layer(
        attention_norm=layer.attention_norm.data_ptr(),
        q_norm=_pointer(layer.q_norm),
        k_norm=_pointer(layer.k_norm),
        mlp_norm=layer.mlp_norm.data_ptr(),
        qkv=_matrix(layer.qkv),
        output=_matrix(layer.output),
        gate_up=_matrix(layer.gate_up),
        down=_matrix(layer.down),
    )


def _form(projection: compact.Linear) -> int | None:
    match projection.weight:
        case Int4Weight():
            return INT4
        case Int8Weight():
            return INT8
        case DenseWeight(tensor) if tensor.dtype in _KINDS and tensor.is_contiguous():
            return DENSE + _KINDS[tensor.dtype]
    return None


def _matrix(projection: compact.Linear) -> Matrix:
    weight = projection.weight
    packed = weight.tensor if isinstance(weight, DenseWeight) else weight.quants
    return Matrix(
        weights=packed.data_ptr(),
        scales=weight.scales.data_ptr() if isinstance(weight, Int4Weight | Int8Weight) else None,
        minima=weight.minima.data_ptr() if isinstance(weight, Int4Weight) else None,
        bias=_pointer(projection.bias),
        rows=weight.rows,
        columns=weight.columns,
        form=_form(projection),
    )


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
