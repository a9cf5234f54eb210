"""The compiled kernels, when this machine has them."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch

_POINTER, _LONG, _FLOAT, _INT = ctypes.c_void_p, ctypes.c_long, ctypes.c_float, ctypes.c_int

_SIGNATURES: dict[str, list[type]] = {
    "int4_product": [_POINTER, _LONG, _LONG, _POINTER, _POINTER, _POINTER, _LONG, _POINTER, _POINTER],
    "int8_product": [_POINTER, _LONG, _LONG, _POINTER, _POINTER, _LONG, _POINTER, _POINTER],
    "dense_product": [_POINTER, _LONG, _LONG, _POINTER, _INT, _LONG, _POINTER, _POINTER],
    "add_rms_norm": [_POINTER, _POINTER, _LONG, _LONG, _POINTER, _FLOAT, _POINTER],
    "silu_product": [_POINTER, _LONG, _LONG, _POINTER],
    "rotate_and_store": [_POINTER, *[_LONG] * 4, _POINTER, _POINTER, _LONG, *[_POINTER] * 4, _FLOAT]
    + [_POINTER, _POINTER, _INT, _LONG],
    "store": [_POINTER, _POINTER, *[_LONG] * 3, *[_POINTER] * 3, _INT, _LONG],
    "paged_attention": [_POINTER, *[_LONG] * 5, _POINTER, _POINTER, _INT, _LONG, _POINTER, _LONG, _POINTER, _POINTER]
    + [_LONG, _FLOAT, _FLOAT, _POINTER],
}


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """The shared library, or None where it was not built or the processor lacks AVX2; then torch does the work."""
    if why_missing() is not None:
        return None
    loaded = ctypes.CDLL(str(_built()))
    for name, arguments in _SIGNATURES.items():
        function = getattr(loaded, name)
        function.argtypes, function.restype = arguments, None
    return loaded


def why_missing() -> str | None:
    """Why the C kernels are not used here, in words for the user; None when they are."""
    if _built() is None:
        return "they were not built; install a C compiler (gcc) and install tunechat again"
    capability = torch.backends.cpu.get_cpu_capability()
    if capability not in {"AVX2", "AVX512"}:
        return f"this processor has no AVX2 (torch reports {capability})"
    return None


def _built() -> Path | None:
    folder = Path(__file__).parent
    return next((p for s in EXTENSION_SUFFIXES if (p := folder / f"_kernels{s}").exists()), None)
