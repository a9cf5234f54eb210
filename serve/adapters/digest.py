"""The identity of an adapter: a hash of all that changes the output, and of nothing else."""

from __future__ import annotations

import hashlib
from pathlib import Path

from .adapter import Adapter
from .background import breathe

_CHUNK = 1 << 20


def digest_of(adapter: Adapter) -> str:
    """Hexadecimal SHA-256 over each module's name, scaling and kind, and each tensor's type, shape and bytes.

    It does not depend on the order of the file, on how the config spells ranks and alphas, on labels such as
    `base_model_name_or_path`, nor on the adapter's name.
    """
    total = hashlib.sha256(b"tunechat adapter 1\n")
    for module in sorted(adapter.modules, key=lambda module: module.name):
        total.update(f"module {module.name} {module.scaling.hex()} {module.magnitude is not None}\n".encode())
        for kind, name in module.tensors:
            entry = adapter.file.entries[name]
            total.update(f"{kind} {entry.dtype} {list(entry.shape)}\n".encode())
            total.update(adapter.file.raw(name))
            breathe()
    return total.hexdigest()


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    total = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            total.update(chunk)
            breathe()
    return total.hexdigest()
