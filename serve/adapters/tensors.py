"""The tensors of an adapter's safetensors file, mapped and never copied as a whole. No other format is ever opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from ..contract.errors import InvalidAdapter, UnsupportedFormat
from .json_file import parse_object

MAX_HEADER = 16 << 20  # bytes
MAX_TENSORS = 100_000

_STORED: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),  # numpy has no bfloat16: the upper half of a float32
}
_BF16_EXPONENT = 0x7F80


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where a tensor lies: `begin` and `end` are byte offsets in the file, `dtype` is the format's word (BF16)."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class TensorFile:
    """A safetensors file, open. `entries` has every tensor in the order of the file's header."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        """Raises UnsupportedFormat when `path` is no safetensors file or larger than `max_bytes`.

        The library checks the format: a header that fits, offsets without gap or overlap, sizes that match shapes.
        """
        size = path.stat().st_size
        if size > max_bytes:
            raise UnsupportedFormat(f"{path.name} takes {size} bytes; adapters of up to {max_bytes} bytes are read")
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(MAX_HEADER, size - 8):
                raise UnsupportedFormat(f"{path.name} is cut short or is no safetensors file")
            header = parse_object(file.read(length), f"the header of {path.name}")
        try:
            with safe_open(path, framework="numpy"):
                pass
        except SafetensorError as error:
            raise UnsupportedFormat(f"{path.name} is no sound safetensors file: {str(error)[:200]}") from error
        header.pop("__metadata__", None)
        if not header or len(header) > MAX_TENSORS:
            raise InvalidAdapter(f"{path.name} holds {len(header)} tensors; 1 to {MAX_TENSORS} are read")
        self.entries = {name: _entry(value, 8 + length) for name, value in header.items()}
        self._bytes = np.memmap(path, dtype=np.uint8, mode="r")

    def raw(self, name: str) -> memoryview:
        """The tensor's bytes as they lie in the file."""
        entry = self.entries[name]
        return self._bytes[entry.begin : entry.end].data

    def array(self, name: str) -> NDArray[np.float32]:
        """The tensor in float32; a view of read-only memory where it is kept so."""
        entry = self.entries[name]
        stored = self._stored(name)
        if entry.dtype == "BF16":
            return (stored.astype(np.uint32) << 16).view(np.float32).reshape(entry.shape)
        return stored.astype(np.float32, copy=False).reshape(entry.shape)

    def is_finite(self, name: str) -> bool:
        """Whether no number of the tensor is NaN or infinite."""
        stored = self._stored(name)
        if self.entries[name].dtype == "BF16":
            return not bool(((stored & _BF16_EXPONENT) == _BF16_EXPONENT).any())
        return bool(np.isfinite(stored).all())

    def is_zero(self, name: str) -> bool:
        """Whether every number of the tensor is 0; minus 0 is one."""
        stored = self._stored(name)
        if self.entries[name].dtype == "BF16":
            return not bool((stored & 0x7FFF).any())
        return not bool(stored.any())

    def _stored(self, name: str) -> NDArray[Any]:
        """The numbers of the tensor in one row. Raises InvalidAdapter when they are of no type that is served."""
        entry = self.entries[name]
        kind = _STORED.get(entry.dtype)
        if kind is None:
            raise InvalidAdapter(f"tensor {name} is of type {entry.dtype}; {', '.join(_STORED)} are served")
        return self._bytes[entry.begin : entry.end].view(kind)


def _entry(value: Mapping[str, Any], start: int) -> TensorEntry:
    begin, end = value["data_offsets"]
    return TensorEntry(value["dtype"], tuple(value["shape"]), start + begin, start + end)
