"""The numeric kernels of the CPU path: C where it could be built, torch with the same results elsewhere."""

from .library import available_cores, set_threads, why_missing
from .products import dense_product, int4_product, int8_product

__all__ = [
    "available_cores",
    "dense_product",
    "int4_product",
    "int8_product",
    "set_threads",
    "why_missing",
]
