"""Reads GGUF files: their metadata, and their tensors as views of the mapped file.

The `gguf` package's reader takes seconds for a vocabulary of 50 000; this one takes a fraction of one and trusts no
count in the file. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..contract.errors import ModelError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MAX_ENTRIES = 1 << 20
_STRING, _ARRAY, _BOOL = 8, 9, 7
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """Where a tensor lies. `shape` has the columns last, as torch has it (the file stores it the other way round)."""

    name: str
    kind: int
    shape: tuple[int, ...]
    offset: int
    nbytes: int

    @property
    def kind_name(self) -> str:
        """The name of the block type, "Q4_1" say."""
        from gguf import GGMLQuantizationType

        return str(GGMLQuantizationType(self.kind).name)


class GgufFile:
    """A GGUF file: `metadata` (strings, numbers, lists) and `tensors` by name.

    Raises ModelError when the file is none, is cut short, or holds a block type that is not known.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            if file.read(4) != _MAGIC:
                raise ModelError(f"{path.name} is no GGUF file")
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            self.metadata, self.tensors = _parse(_Cursor(self._data, 4), len(self._data))
        except (struct.error, UnicodeDecodeError, IndexError) as error:
            raise ModelError(f"{path.name} is cut short or damaged; fetch it again") from error
        except ModelError as error:
            raise ModelError(f"{path.name}: {error.message}") from error

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", ""))

    def raw(self, tensor: GgufTensor) -> npt.NDArray[np.uint8]:
        """The blocks of `tensor` as they lie in the file: uint8 [rows, bytes a row], read-only."""
        flat = np.frombuffer(self._data, dtype=np.uint8, count=tensor.nbytes, offset=tensor.offset)
        return flat.reshape(prod(tensor.shape[:-1]), -1)

    def dequantized(self, tensor: GgufTensor) -> npt.NDArray[np.float32]:
        """The values of `tensor`, by the `gguf` package: float32 of its shape."""
        from gguf import GGMLQuantizationType, quants

        try:
            values = quants.dequantize(self.raw(tensor), GGMLQuantizationType(tensor.kind))
        except RuntimeError as error:
            raise ModelError(f"{tensor.name} is of type {tensor.kind_name}, which cannot be dequantised") from error
        return np.asarray(values, dtype=np.float32).reshape(tensor.shape)


class _Cursor:
    """Reads little-endian values one after the other."""

    def __init__(self, data: mmap.mmap, offset: int) -> None:
        self.data = data
        self.offset = offset

    def scalar(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self.data, self.offset)
        self.offset += struct.calcsize("<" + code)
        return value

    def string(self) -> str:
        length = self.scalar("Q")
        end = self.offset + length
        if end > len(self.data):
            raise IndexError(end)
        text = self.data[self.offset : end].decode("utf-8")
        self.offset = end
        return text

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self.array()
        if kind not in _SCALARS:
            raise ModelError(f"metadata value of unknown type {kind}")
        return self.scalar(_SCALARS[kind])

    def array(self) -> list[Any]:
        kind, count = self.scalar("I"), self.scalar("Q")
        if kind == _ARRAY:
            raise ModelError("metadata arrays of arrays are not read")
        if kind == _STRING:
            if count > len(self.data) - self.offset:
                raise IndexError(count)
            return [self.string() for _ in range(count)]
        if kind not in _SCALARS:
            raise ModelError(f"metadata array of unknown type {kind}")
        size = struct.calcsize("<" + _SCALARS[kind])
        if count * size > len(self.data) - self.offset:
            raise IndexError(count)
        values = list(struct.unpack_from(f"<{count}{_SCALARS[kind]}", self.data, self.offset))
        self.offset += count * size
        return values


def _parse(cursor: _Cursor, size: int) -> tuple[dict[str, Any], dict[str, GgufTensor]]:
    version = cursor.scalar("I")
    if version not in _VERSIONS:
        raise ModelError(f"GGUF version {version} is not read (2 and 3 are, little-endian)")
    tensor_count, entry_count = cursor.scalar("Q"), cursor.scalar("Q")
    if max(tensor_count, entry_count) > _MAX_ENTRIES:
        raise ModelError(f"{tensor_count} tensors and {entry_count} metadata entries cannot be right")
    metadata: dict[str, Any] = {}
    for _ in range(entry_count):
        key = cursor.string()
        metadata[key] = cursor.value(cursor.scalar("I"))
    entries = []
    for _ in range(tensor_count):
        name, dimensions = cursor.string(), cursor.scalar("I")
        if dimensions > 4:
            raise ModelError(f"tensor {name} has {dimensions} dimensions")
        shape = tuple(cursor.scalar("Q") for _ in range(dimensions))[::-1]
        entries.append((name, shape, cursor.scalar("I"), cursor.scalar("Q")))
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise ModelError(f"alignment {alignment!r} is no power of two")
    start = -(-cursor.offset // alignment) * alignment
    return metadata, {e[0]: _tensor(e[0], e[1], e[2], start + e[3], size) for e in entries}


def _tensor(name: str, shape: tuple[int, ...], kind: int, offset: int, size: int) -> GgufTensor:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    except (ValueError, KeyError) as error:
        raise ModelError(f"tensor {name} is of the unknown type {kind}") from error
    if not shape or min(shape) < 1 or shape[-1] % block:
        raise ModelError(f"tensor {name} of shape {shape} does not fall into blocks of {block}")
    nbytes = prod(shape) // block * block_bytes
    if offset + nbytes > size:
        raise ModelError(f"the file ends before tensor {name} does; fetch it again")
    return GgufTensor(name, kind, shape, offset, nbytes)
