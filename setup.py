"""Builds the optional C kernels; everything else is declared in pyproject.toml."""

from __future__ import annotations

import platform

from setuptools import Extension, setup

X86_64 = platform.machine().lower() in {"x86_64", "amd64"}

# A shared library that is loaded with ctypes, so it needs no Python symbols. Where it cannot be built (no compiler,
# another processor) the install goes on, and the torch path serves with the same results, more slowly.
kernels = Extension(
    "tunechat.serve.kernels._kernels",
    sources=[f"serve/kernels/{name}.c" for name in ("adapters", "decoder", "layer", "pool", "products")],
    depends=[
        f"serve/kernels/{name}.h"
        for name in (
            "adapters",
            "common",
            "deltas",
            "lanes256",
            "lanes512",
            "pool",
            "sixteen256",
            "sixteen512",
            "tiles",
        )
    ],
    extra_compile_args=["-O3", "-mavx2", "-mfma", "-mf16c", "-ffp-contract=off", "-pthread", "-std=gnu11"],
    extra_link_args=["-pthread", "-lm"],
    optional=True,
)

setup(ext_modules=[kernels] if X86_64 else [])
