"""Writes a model folder in the Hugging Face layout, one tensor after the other: no more than one is in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ..contract.errors import ModelError
from .json_text import json_bytes
from .publish import write_synced
from .safetensors_file import TensorSpec

SHARD_BYTES = 4 << 30
_FORMATS = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
_NOT_CODE = frozenset({"auto_map", "custom_pipelines", "quantization_config"})


class Tensors(Protocol):
    """Tensors by their names in a transformers state dict, read when they are asked for."""

    @property
    def config(self) -> dict[str, Any]: ...

    @property
    def names(self) -> Collection[str]: ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def tensor(self, name: str) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class WrittenModel:
    """What is written: every tensor of `shapes` by `make` in the type `dtype`, and `files` beside them.

    `config` is the source's own; what names code to run or a quantisation is left out, and the type is set.
    """

    config: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    make: Callable[[str], Tensor]
    dtype: torch.dtype
    files: Mapping[str, bytes]
    metadata: Mapping[str, str] = field(default_factory=dict)


def write_model(
    folder: Path, model: WrittenModel, progress: Callable[[float], None], *, shard_bytes: int = SHARD_BYTES
) -> int:
    """Writes `model` into the empty `folder`, synced to disk; returns the bytes of its weights.

    `progress` gets the fraction written. Raises ModelError naming the tensor that `dtype` cannot hold.
    """
    specs = [TensorSpec(name, model.dtype, shape) for name, shape in model.shapes.items()]
    shards = list(_shards(specs, shard_bytes))
    names = _file_names(len(shards))
    total = sum(spec.nbytes for spec in specs)
    written = 0
    for name, shard in zip(names, shards, strict=True):
        for count in _write_shard(folder / name, shard, model):
            written += count
            progress(written / max(total, 1))
    if len(shards) > 1:
        places = {spec.name: name for name, shard in zip(names, shards, strict=True) for spec in shard}
        index = {"metadata": {"total_size": total}, "weight_map": places}
        write_synced(folder / "model.safetensors.index.json", json_bytes(index))
    config = {key: value for key, value in model.config.items() if key not in _NOT_CODE | {"torch_dtype", "dtype"}}
    config["torch_dtype"] = str(model.dtype).removeprefix("torch.")  # the spelling that all releases read
    for name, content in {"config.json": json_bytes(config), **model.files}.items():
        write_synced(folder / name, content)
    return total


def _shards(specs: Sequence[TensorSpec], most: int) -> Iterator[list[TensorSpec]]:
    """`specs` in order, cut so that no shard takes more than `most` bytes unless one tensor alone does."""
    shard: list[TensorSpec] = []
    for spec in specs:
        if shard and sum(one.nbytes for one in shard) + spec.nbytes > most:
            yield shard
            shard = []
        shard.append(spec)
    yield shard


def _file_names(count: int) -> list[str]:
    if count == 1:
        return ["model.safetensors"]
    return [f"model-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)]


def _write_shard(path: Path, specs: Sequence[TensorSpec], model: WrittenModel) -> Iterator[int]:
    """Writes one safetensors file and yields the bytes of each tensor once it is written.

    The format wants tensors back to back; all are of one type, so each lies on a multiple of its own size.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **model.metadata}}
    offset = 0
    for spec in specs:
        end = offset + spec.nbytes
        header[spec.name] = {"dtype": _FORMATS[spec.dtype], "shape": list(spec.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("xb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for spec in specs:
            tensor = _fitting(model.make(spec.name), spec)
            file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
            yield spec.nbytes
        file.flush()
        os.fsync(file.fileno())


def _fitting(tensor: Tensor, spec: TensorSpec) -> Tensor:
    if tuple(tensor.shape) != spec.shape:
        raise ValueError(f"{spec.name}: planned {spec.shape}, made {tuple(tensor.shape)}")
    cast = tensor.to(spec.dtype).contiguous()
    if not bool(cast.isfinite().all()):
        kind = str(spec.dtype).removeprefix("torch.")
        raise ModelError(f"{spec.name} has numbers that {kind} cannot hold; choose bfloat16 or float32")
    return cast
