"""Writes and maps weight files in the safetensors format, every tensor on a 64-byte boundary.

The format (https://github.com/huggingface/safetensors) wants tensors back to back, so gaps are filled with small
tensors named `__pad__N`; the file stays readable by every safetensors library.
"""

from __future__ import annotations

import json
import mmap
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ..contract.errors import ModelError

ALIGNMENT = 64
PADDING_PREFIX = "__pad__"
MAX_HEADER = 100 << 20  # bytes; the safetensors library refuses more

_DTYPES: dict[str, torch.dtype] = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F64": torch.float64,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, type and shape of a tensor that is still to be made."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        count = self.dtype.itemsize
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True, slots=True)
class Planned:
    """Tensors that are made together when their turn comes. `make` returns them in the order of `specs`."""

    specs: tuple[TensorSpec, ...]
    make: Callable[[], Sequence[Tensor]]


def write_tensors(
    path: Path, planned: Sequence[Planned], metadata: Mapping[str, str], progress: Callable[[float], None]
) -> None:
    """Writes `planned` to `path` and syncs it to disk; at no time are more than one `Planned`'s tensors in memory.

    `progress` is called with the fraction of bytes written. Raises ValueError when a tensor is not what its spec says.
    """
    header, total = _header([spec for plan in planned for spec in plan.specs], metadata)
    with path.open("xb") as file:
        file.write(header)
        written = 0
        for plan in planned:
            tensors = plan.make()
            for spec, tensor in zip(plan.specs, tensors, strict=True):
                if tensor.dtype != spec.dtype or tuple(tensor.shape) != spec.shape:
                    raise ValueError(f"{spec.name}: planned {spec}, made {tensor.dtype} {tuple(tensor.shape)}")
                written += _write_aligned(file, tensor)
            progress(written / max(total, 1))
        file.flush()
        os.fsync(file.fileno())


class MappedTensors:
    """The tensors of a safetensors file as views of memory that is mapped read-only and shared between processes.

    Writing to one of them ends the process (SIGSEGV): the pages are PROT_READ.
    """

    def __init__(self, path: Path) -> None:
        """Raises ModelError when the file is cut short or its header is no safetensors header."""
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            header, start = _read_header(file, size, path.name)
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.metadata: dict[str, str] = header.pop("__metadata__", {})
        self.nbytes = size
        # torch warns that views of read-only memory must not be written to, which is the very point of them.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            buffer = torch.frombuffer(mapping, dtype=torch.uint8)
        names = [name for name in header if not name.startswith(PADDING_PREFIX)]
        self._tensors = {name: _view(buffer[start:], name, header[name]) for name in names}

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _header(specs: Sequence[TensorSpec], metadata: Mapping[str, str]) -> tuple[bytes, int]:
    """The file's first bytes, padded to the alignment, and the number of bytes that follow them."""
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = pads = 0
    for spec in specs:
        if spec.name in entries or spec.name.startswith("__"):
            raise ValueError(f"tensor name {spec.name!r} is taken or reserved")
        entries[spec.name] = _entry(_NAMES[spec.dtype], spec.shape, offset, spec.nbytes)
        offset += spec.nbytes
        if gap := -offset % ALIGNMENT:
            entries[f"{PADDING_PREFIX}{pads}"] = _entry("U8", (gap,), offset, gap)
            offset, pads = offset + gap, pads + 1
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text, offset


def _entry(dtype: str, shape: tuple[int, ...], offset: int, nbytes: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + nbytes]}


def _write_aligned(file: BinaryIO, tensor: Tensor) -> int:
    if tensor.numel():
        file.write(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    padding = -tensor.nbytes % ALIGNMENT
    file.write(bytes(padding))
    return tensor.nbytes + padding


def _read_header(file: BinaryIO, size: int, label: str) -> tuple[dict[str, Any], int]:
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(MAX_HEADER, size - 8):
        raise ModelError(f"{label} is cut short or is no safetensors file; fetch the model again")
    try:
        header = json.loads(file.read(length))
        end = max((_checked_end(n, e) for n, e in header.items() if n != "__metadata__"), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{label} is no safetensors file: its header cannot be read") from error
    if 8 + length + end != size:
        raise ModelError(f"{label} holds {size} bytes where its header says {8 + length + end}; fetch the model again")
    return header, 8 + length


def _checked_end(name: str, entry: Mapping[str, Any]) -> int:
    """Where a tensor ends. Raises ModelError when its shape and type do not take the bytes it has."""
    if entry["dtype"] not in _DTYPES:
        raise ModelError(f"tensor {name} is of type {entry['dtype']}; models of that type are not read")
    begin, end = entry["data_offsets"]
    if begin < 0 or min(entry["shape"], default=0) < 0 or end - begin != _spec(name, entry).nbytes:
        raise ModelError(f"tensor {name} does not take the bytes that its shape asks for; fetch the model again")
    return int(end)


def _spec(name: str, entry: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(name, _DTYPES[entry["dtype"]], tuple(int(size) for size in entry["shape"]))


def _view(data: Tensor, name: str, entry: Mapping[str, Any]) -> Tensor:
    begin, end = entry["data_offsets"]
    spec = _spec(name, entry)
    if not spec.nbytes:
        return torch.empty(spec.shape, dtype=spec.dtype)
    piece = data[begin:end]
    if piece.data_ptr() % spec.dtype.itemsize or piece.storage_offset() % spec.dtype.itemsize:
        piece = piece.clone()
    return piece.view(spec.dtype).view(spec.shape)
