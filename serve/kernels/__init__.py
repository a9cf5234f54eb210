"""The numeric kernels of the CPU path: C where it could be built, torch with the same results elsewhere."""

from .library import library, why_missing
from .products import dense_product, int4_product, int8_product

__all__ = ["dense_product", "int4_product", "int8_product", "library", "why_missing"]
