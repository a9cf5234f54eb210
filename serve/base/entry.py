"""A prepared base model: a folder of a manifest, mapped weights, a config and tokenizer files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from ..contract.base import MANIFEST_FORMAT, BaseManifest
from ..contract.errors import ModelError
from .json_text import read_object
from .quantize import nf4_levels
from .safetensors_file import MappedTensors
from .weights import DenseWeight, Int4Weight, Int8Weight, Nf4Weight, Weight

MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
CONFIG = "config.json"


class BaseEntry:
    """A prepared base, open. Its tensors are views of mapped read-only memory, shared by all processes that open it."""

    def __init__(self, folder: Path, manifest: BaseManifest, config: dict[str, Any], tensors: MappedTensors) -> None:
        self.folder = folder
        self.manifest = manifest
        self.config = config
        self._tensors = tensors
        self._forms: dict[str, dict[str, Any]] = json.loads(tensors.metadata.get("forms", "{}"))
        self._levels = nf4_levels()

    @classmethod
    def open(cls, folder: Path) -> BaseEntry:
        """The entry in `folder`. Raises ModelError when it is none, is of another version, or a file is cut short.

        Contents are not hashed here; `verify` does that.
        """
        manifest = read_manifest(folder)
        for name in (WEIGHTS, CONFIG):
            if name not in manifest.files:
                raise ModelError(f"prepared model {folder.name} lists no {name}; remove it and prepare it again")
        for name in manifest.files:
            if Path(name).name != name or not (folder / name).is_file():
                raise ModelError(f"prepared model {folder.name} lacks {name}; remove it and prepare it again")
        config = read_object(folder / CONFIG)
        tensors = MappedTensors(folder / WEIGHTS)
        if tensors.nbytes != manifest.weight_bytes:
            raise ModelError(
                f"{WEIGHTS} of prepared model {folder.name} holds {tensors.nbytes} bytes instead of "
                f"{manifest.weight_bytes}; remove it and prepare it again"
            )
        return cls(folder, manifest, config, tensors)

    def verify(self) -> None:
        """Hashes every file. Raises ModelError naming the first whose content is not what the manifest says."""
        for name, expected in self.manifest.files.items():
            if sha256_of(self.folder / name) != expected:
                raise ModelError(f"{name} of prepared model {self.folder.name} was changed; prepare it again")

    @property
    def nbytes(self) -> int:
        """Bytes of the weights file."""
        return self._tensors.nbytes

    def names(self) -> tuple[str, ...]:
        """Names of all matrices ("lm_head") and of all other tensors ("model.norm.weight"), in file order."""
        others = [
            name for name in self._tensors if name.rpartition(".")[0] not in self._forms or name.endswith(".bias")
        ]
        return (*self._forms, *others)

    def has(self, name: str) -> bool:
        """Whether `name` is a matrix ("lm_head") or any other tensor ("model.norm.weight")."""
        return name in self._forms or name in self._tensors

    def weight(self, name: str) -> Weight:
        """The matrix `name` ("model.layers.0.mlp.down_proj") in the form it is kept in; ModelError if there is none."""
        form = self._forms.get(name)
        if form is None:
            raise ModelError(f"base model {self.manifest.name} has no matrix {name}")
        kind = form["form"]
        if kind == "dense":
            return DenseWeight(self._tensor(f"{name}.weight"))
        quants = self._tensor(f"{name}.quants")
        if kind == "int4":
            return Int4Weight(quants, self._tensor(f"{name}.scales"), self._tensor(f"{name}.minima"), form["rows"])
        if kind == "int8":
            return Int8Weight(quants, self._tensor(f"{name}.scales"), form["rows"])
        if kind == "nf4":
            return Nf4Weight(quants, self._tensor(f"{name}.absmax"), self._levels, form["rows"], form["columns"])
        raise ModelError(f"{name} is kept in the unknown form {kind!r}")

    def vector(self, name: str) -> Tensor:
        """The bias or norm `name`, with its suffix ("model.norm.weight"): float32; ModelError when there is none."""
        return self._tensor(name).to(torch.float32)

    def tensor(self, name: str) -> Tensor:
        """Any tensor of the file by its whole name, as it is kept; ModelError when there is none."""
        return self._tensor(name)

    def _tensor(self, name: str) -> Tensor:
        if name not in self._tensors:
            raise ModelError(f"base model {self.manifest.name} has no tensor {name}")
        return self._tensors[name]


def read_manifest(folder: Path) -> BaseManifest:
    """The manifest of a prepared model. Raises ModelError when there is none, or it is of another format."""
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=BaseManifest)
    except FileNotFoundError as error:
        raise ModelError(f"{folder.name} is no prepared model: it has no {MANIFEST}") from error
    except (OSError, msgspec.MsgspecError) as error:
        raise ModelError(f"{MANIFEST} of {folder.name} cannot be read: {error}") from error
    if manifest.format != MANIFEST_FORMAT:
        raise ModelError(f"prepared model {folder.name} is of format {manifest.format}; prepare it again")
    return manifest


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
