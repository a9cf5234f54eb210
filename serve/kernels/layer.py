"""A whole decoder layer in one call: its weights and its step as the structures that `layer.c` reads."""

from __future__ import annotations

import ctypes

from torch import Tensor

from .library import library

_POINTER, _LONG, _FLOAT = ctypes.c_void_p, ctypes.c_long, ctypes.c_float
INT4, INT8, DENSE = 0, 1, 2


class Matrix(ctypes.Structure):
    """A weight: `form` is INT4, INT8, or DENSE plus the kind of its elements."""

    _fields_ = (
        *((name, _POINTER) for name in ("weights", "scales", "minima", "bias")),
        *((name, _LONG) for name in ("rows", "columns", "form")),
    )


class Layer(ctypes.Structure):
    """The weights of one decoder layer. Whoever makes it keeps the tensors alive."""

    _fields_ = (
        *((name, _POINTER) for name in ("attention_norm", "q_norm", "k_norm", "mlp_norm")),
        *((name, Matrix) for name in ("qkv", "output", "gate_up", "down")),
    )


class Step(ctypes.Structure):
    """What all layers of a step share: sizes, the batch, and buffers."""

    _fields_ = (
        *((name, _LONG) for name in ("tokens", "heads", "kv_heads", "head_dim", "half", "window")),
        *((name, _LONG) for name in ("cache_kind", "cache_stride", "block_size", "table_width")),
        *((name, _POINTER) for name in ("cosines", "sines", "positions", "sequences", "block_tables", "slots")),
        *((name, _POINTER) for name in ("hidden", "delta", "normed", "qkv", "mixed", "gate_up", "gated")),
        ("adapters", _POINTER),
        *((name, _FLOAT) for name in ("eps", "scale")),
    )


def decoder_layer(layer: Layer, step: Step, keys: Tensor, values: Tensor, index: int) -> None:
    """Runs layer number `index` on `step.hidden` and `step.delta`. Raises RuntimeError where the C kernels are not."""
    c = library()
    if c is None:
        raise RuntimeError("the C kernels are not available")
    c.decoder_layer(ctypes.addressof(layer), ctypes.addressof(step), keys.data_ptr(), values.data_ptr(), index)
