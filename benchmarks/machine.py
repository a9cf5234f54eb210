"""What a measurement ran on, in words that go into its table."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("tunechat", "torch", "transformers", "numpy", "fastapi", "uvicorn")


def describe() -> list[str]:
    """Processor, cores, memory, Python and package versions, one line each."""
    flags = _first("flags").split()
    vectors = [name for name in ("avx2", "avx512f", "avx512_vnni", "amx_int8") if name in flags]
    return [
        f"processor: {_first('model name') or platform.processor()}, {os.cpu_count()} cores ({', '.join(vectors)})",
        f"memory: {_memory_gib():.0f} GiB",
        f"system: {platform.system()} {platform.release()}, Python {platform.python_version()}, {_compiler()}",
        "packages: " + ", ".join(f"{name} {version(name)}" for name in PACKAGES),
    ]


def _first(key: str) -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _compiler() -> str:
    try:
        return subprocess.run(["gcc", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.CalledProcessError):
        return "no gcc"
