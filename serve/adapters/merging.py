"""A weight with an adapter in it: what the adapter computes, put into the matrix itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .adapter import Adapter, LoraModule

_BLOCK = 1 << 24  # numbers of the product B A that are in memory at once


def merge_into(weight: NDArray[np.float32], adapter: Adapter, module: LoraModule) -> None:
    """Changes `weight` [rows, columns] into that of `module` with the adapter in it, in float32.

    LoRA and rsLoRA: W + s B A. DoRA (arXiv 2402.09353): m (W + s B A) / |W + s B A|, with the norm of each row. Raises
    ValueError when `weight` has another shape than the module.
    """
    if weight.shape != (module.rows, module.columns):
        raise ValueError(f"{module.name} has the shape {[module.rows, module.columns]}, not {list(weight.shape)}")
    a, b, magnitude = adapter.a(module), adapter.b(module), adapter.magnitude(module)
    scaling = np.float32(module.scaling)
    step = max(1, _BLOCK // module.columns)
    for start in range(0, module.rows, step):
        rows = slice(start, start + step)
        block = weight[rows]
        block += (b[rows] @ a) * scaling
        if magnitude is not None:
            norm = np.linalg.norm(block, axis=1)
            # A row of zeros has no direction: it stays zero.
            block *= np.divide(magnitude[rows], norm, out=np.zeros_like(norm), where=norm > 0)[:, None]
