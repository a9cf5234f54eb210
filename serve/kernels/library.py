"""The compiled kernels, when this machine has them."""

from __future__ import annotations

import ctypes
import os
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch

_TYPES: dict[str, type] = {"p": ctypes.c_void_p, "l": ctypes.c_long, "f": ctypes.c_float, "i": ctypes.c_int}

# Arguments of each function, a letter each: pointer, long, float, int.
_SIGNATURES = {
    "allow_vnni": "i",
    "set_threads": "i",
    "int4_product": "p ll ppp l pp pl",
    "int8_product": "p ll pp l pp pl",
    "dense_product": "p ll p i l pp pl",
    "add_rms_norm": "pp ll p f p",
    "silu_product": "p ll p",
    "rotate_and_store": "p llll pp l pp pp f pp i ll",
    "decoder_layer": "pppp l",
    "store": "pp lll p pp i ll",
    "paged_attention": "p lllll pp i ll p l pp l ff p",
}


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """The shared library, or None where it was not built or the processor lacks AVX2; then torch does the work."""
    if why_missing() is not None:
        return None
    loaded = ctypes.CDLL(str(_built()))
    for name, letters in _SIGNATURES.items():
        function = getattr(loaded, name)
        function.argtypes = [_TYPES[letter] for letter in letters.replace(" ", "")]
        function.restype = None
    loaded.set_threads(available_cores())
    return loaded


def set_threads(count: int) -> None:
    """How many threads the kernels use from now on; at the start it is one for each core that may be used."""
    loaded = library()
    if loaded is not None:
        loaded.set_threads(count)


def available_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
