"""A model with changed linears, as a folder that transformers loads and tunechat serves."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..contract.errors import ModelError
from .model_folder import SHARD_BYTES, Tensors, WrittenModel, write_model
from .tied_head import tied_to

Change = Callable[[NDArray[np.float32]], None]  # changes the weight [rows, columns] of one linear in place


@dataclass(frozen=True, slots=True)
class Written:
    """What was written: bytes of the weights, their type, and the heads that got a weight of their own."""

    nbytes: int
    dtype: str
    untied: tuple[str, ...]


def write_changed(
    folder: Path,
    source: Tensors,
    changes: Mapping[str, Change],
    *,
    dtype: torch.dtype | None,
    files: Mapping[str, bytes],
    metadata: Mapping[str, str],
    progress: Callable[[float], None],
    shard_bytes: int = SHARD_BYTES,
) -> Written:
    """Writes `source` into the empty `folder`, the weights of the linears in `changes` changed in float32.

    `dtype` None keeps the type that most of the source's numbers have. A head that shares its weight with the embedding
    gets one of its own when it is changed. Raises ModelError when the source has no such linear, or a number that
    `dtype` cannot hold.
    """
    config = dict(source.config)
    origins = {name: name for name in source.names}
    targets: dict[str, Change] = {}
    untied = []
    for module, change in changes.items():
        name = _weight_name(origins, module)
        if shared := _tied_to(config, module):
            origins.pop(name or "", None)
            origin = _weight_name(origins, shared.removesuffix(".weight"))
            name = f"{module}.weight"
            untied.append(module)
        else:
            origin = name
        if name is None or origin is None:
            raise ModelError(f"the model's files have no weight of {module}")
        origins[name] = origin
        targets[name] = change
    if untied:
        config["tie_word_embeddings"] = False

    def make(name: str) -> Tensor:
        tensor = source.tensor(origins[name])
        if name not in targets:
            return tensor
        weight = tensor.to(torch.float32, copy=True).contiguous()
        targets[name](weight.numpy())
        return weight

    chosen = dtype or _main_type(source)
    shapes = {name: source.shape(origin) for name, origin in origins.items()}
    model = WrittenModel(config, shapes, make, chosen, files, metadata)
    nbytes = write_model(folder, model, progress, shard_bytes=shard_bytes)
    return Written(nbytes, str(chosen).removeprefix("torch."), tuple(untied))


def is_tied(config: Mapping[str, object], module: str) -> bool:
    """Whether the linear `module` uses the embedding as its weight, so that changing it takes a weight of its own."""
    return _tied_to(config, module) is not None


def _tied_to(config: Mapping[str, object], module: str) -> str | None:
    """The embedding's tensor, for a linear that uses it as its weight. Those of numbered layers never do."""
    is_layers_own = any(part.isdigit() for part in module.split("."))
    return None if is_layers_own else tied_to(config, module)


def _weight_name(names: Container[str], module: str) -> str | None:
    """The tensor of a module. Files of a bare model lack the first part of the class's names."""
    candidates = (f"{module}.weight", f"{module.partition('.')[2]}.weight")
    return next((name for name in candidates if name in names), None)


def _main_type(source: Tensors) -> torch.dtype:
    """The type of the largest tensor, where it is one that is written; else float32."""
    largest = max(source.names, key=lambda name: math.prod(source.shape(name)))
    dtype = source.tensor(largest).dtype
    return dtype if dtype in {torch.float16, torch.bfloat16} else torch.float32
