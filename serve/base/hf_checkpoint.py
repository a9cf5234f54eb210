"""A folder in the layout of a Hugging Face repository as a checkpoint: safetensors and config.json, never code."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from torch import Tensor

from ..contract.errors import ModelError
from .checkpoint import DenseRows
from .json_text import read_object
from .safetensors_file import MappedTensors

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"


class HfCheckpoint:
    """Raises ModelError for a folder without config or safetensors, and for one that is quantised already."""

    def __init__(self, folder: Path) -> None:
        self.config: dict[str, Any] = read_object(file_in(folder, "config.json"))
        if method := self.config.get("quantization_config"):
            name = method.get("quant_method") if isinstance(method, dict) else method
            raise ModelError(f"{folder.name} is quantised already ({name}); use the model it was made from")
        self.files = _weight_files(folder)
        self._tensors: dict[str, Tensor] = {}
        for file in self.files:
            mapped = MappedTensors(file)
            if twice := self._tensors.keys() & set(mapped):
                raise ModelError(f"{folder.name} holds {min(twice)} in two files")
            self._tensors.update((name, mapped[name]) for name in mapped)

    @property
    def names(self) -> Collection[str]:
        return self._tensors.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def matrix(self, name: str) -> DenseRows:
        return DenseRows(self, name, self._tensors[name].dtype)

    def tensor(self, name: str) -> Tensor:
        return self._tensors[name]


def file_in(folder: Path, name: str) -> Path:
    """The file `name` of `folder`. Raises ModelError when there is none, or when it is a link that leads elsewhere.

    Links of a Hugging Face cache are followed: its snapshots point into the `blobs` folder beside them.
    """
    path = folder / name
    if Path(name).name != name or name in {".", ".."}:
        raise ModelError(f"{name!r} is no file name")
    if not path.is_file():
        raise ModelError(f"{folder.name} has no {name}")
    allowed = [folder.resolve()]
    if folder.parent.name == "snapshots":
        allowed.append(folder.parent.parent.resolve() / "blobs")
    if not any(path.resolve().is_relative_to(root) for root in allowed):
        raise ModelError(f"{name} of {folder.name} is a link that leads out of it; put the file itself there")
    return path


def has_file(folder: Path, name: str) -> bool:
    """Whether there is anything of that name in `folder`."""
    return (folder / name).exists()


def _weight_files(folder: Path) -> list[Path]:
    if has_file(folder, _INDEX):
        weight_map = read_object(file_in(folder, _INDEX)).get("weight_map")
        if not isinstance(weight_map, dict):
            raise ModelError(f"{_INDEX} of {folder.name} has no weight_map")
        return [file_in(folder, name) for name in sorted({str(value) for value in weight_map.values()})]
    if has_file(folder, _SINGLE):
        return [file_in(folder, _SINGLE)]
    found = sorted(path.name for path in folder.glob("*.safetensors"))
    if not found:
        raise ModelError(
            f"{folder.name} holds no safetensors weights. Files of other formats (.bin, .pt) can run code and are "
            "never read; convert the model with `save_pretrained(safe_serialization=True)` first"
        )
    return [file_in(folder, name) for name in found]
