"""A PEFT folder as a checked adapter: every tensor has its place in the base, and every number is a number."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..contract.errors import InvalidAdapter, UnsupportedFormat
from .background import breathe
from .json_file import read_object
from .settings import LoraSettings, read_settings
from .tensors import TensorFile

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Limits:
    """What an adapter may take. `max_bytes` is for the weights file."""

    max_rank: int = 512
    max_bytes: int = 8 << 30


@dataclass(frozen=True, slots=True)
class LoraModule:
    """One linear that the adapter changes: y += scaling * B (A x), A [rank, columns], B [rows, rank].

    `magnitude` is the tensor's name for DoRA (arXiv 2402.09353), whose numbers are [rows].
    """

    name: str
    rows: int
    columns: int
    rank: int
    scaling: float
    a: str
    b: str
    magnitude: str | None

    @property
    def tensors(self) -> tuple[tuple[str, str], ...]:
        """What each tensor is ("A", "B", "M") and its name in the file."""
        pairs = (("A", self.a), ("B", self.b))
        return pairs if self.magnitude is None else (*pairs, ("M", self.magnitude))


@dataclass(frozen=True, slots=True)
class Adapter:
    """A checked adapter. Its numbers are read from the file when they are asked for."""

    settings: LoraSettings
    file: TensorFile
    modules: tuple[LoraModule, ...]
    warnings: tuple[str, ...]

    @property
    def rank(self) -> int:
        """The largest rank of any module."""
        return max(module.rank for module in self.modules)

    @property
    def targets(self) -> tuple[str, ...]:
        """The last parts of the modules' names, sorted."""
        return tuple(sorted({module.name.rpartition(".")[2] for module in self.modules}))

    @property
    def parameters(self) -> int:
        per_module = (m.rank * (m.rows + m.columns) + (m.rows if m.magnitude else 0) for m in self.modules)
        return sum(per_module)

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors that are used, as they are stored."""
        return sum(len(self.file.raw(name)) for module in self.modules for _, name in module.tensors)

    def a(self, module: LoraModule) -> NDArray[np.float32]:
        """[rank, columns]"""
        return self.file.array(module.a)

    def b(self, module: LoraModule) -> NDArray[np.float32]:
        """[rows, rank]"""
        return self.file.array(module.b)

    def magnitude(self, module: LoraModule) -> NDArray[np.float32] | None:
        """[rows] for DoRA, else None."""
        return None if module.magnitude is None else self.file.array(module.magnitude)


def read_adapter(folder: Path, linears: Mapping[str, tuple[int, int]], limits: Limits = Limits()) -> Adapter:
    """The adapter in `folder`, checked against the base's linear modules (BaseManifest.linears).

    Only `adapter_config.json` and `adapter_model.safetensors` are opened. The weights are mapped: nobody may write to
    the file meanwhile. Raises UnsupportedFormat for what is not read at all, and InvalidAdapter for tensors that are
    missing, misshapen, misplaced, not finite or without effect.
    """
    require_files(folder)
    settings = read_settings(read_object(folder / CONFIG), limits.max_rank)
    file = TensorFile(folder / WEIGHTS, limits.max_bytes)
    found, copies = _sorted_out(file.entries)
    _check_places(found, linears)
    modules = tuple(_module(name, found[name], file, linears[name], settings) for name in sorted(found))
    for name in copies:
        _check_copy(name, file, linears)
    _check_numbers(modules, file)
    warnings = [f"{copies[0]} is a copy of the base's own weights and is not read"] if copies else []
    return Adapter(settings, file, modules, (*warnings, *_left_out(settings, found, linears)))


def require_files(folder: Path) -> None:
    """Raises UnsupportedFormat when `folder` lacks one of a PEFT adapter's two files."""
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise UnsupportedFormat(_missing(folder, name))


_TENSOR = re.compile(
    r"(?P<module>.+)\.(?:lora_(?P<half>[AB])\.weight|lora_(?P<magnitude>magnitude)_vector(?:\.weight)?)"
)
_COPY = re.compile(r"(?P<module>.*lm_head)\.base_layer\.(?:weight|bias)")


def _sorted_out(names: Iterable[str]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """The LoRA tensors by module and kind (A, B, M), and copies of base weights that PEFT writes beside a head's."""
    found: dict[str, dict[str, str]] = {}
    copies: list[str] = []
    strange: list[str] = []
    for name in names:
        path = name.removeprefix(_PREFIX)
        if path == name:
            strange.append(name)
        elif match := _TENSOR.fullmatch(path):
            kind = match["half"] or "M"
            if found.setdefault(match["module"], {}).setdefault(kind, name) != name:
                raise InvalidAdapter(f"{match['module']} has its lora_magnitude_vector twice")
        elif _COPY.fullmatch(path):
            copies.append(name)
        else:
            strange.append(name)
    if strange:
        raise UnsupportedFormat(f"{_some(strange, 'tensor')} cannot be served: {_reason(strange[0])}")
    copies = sorted(copies)
    return found, copies


def _reason(name: str) -> str:
    if "lora_embedding_" in name:
        return "adapters of the embedding are not; train only linear modules"
    if "modules_to_save" in name or name.endswith(("embed_tokens.weight", "lm_head.weight")):
        return "whole weights trained beside the adapter (modules_to_save, a resized vocabulary) are not"
    if re.search(r"lora_[AB]\.bias$", name):
        return "LoRA biases (lora_bias) are not"
    return f"PEFT names LoRA tensors {_PREFIX}MODULE.lora_A.weight, .lora_B.weight and .lora_magnitude_vector"


def _check_places(found: Mapping[str, object], linears: Mapping[str, tuple[int, int]]) -> None:
    unmatched = sorted(name for name in found if name not in linears)
    if unmatched:
        raise InvalidAdapter(
            f"the base has no linear module for {_some(unmatched, 'module')} of {len(found)}; "
            "the adapter was made for another architecture"
        )
    if not found:
        raise InvalidAdapter("the adapter has no LoRA tensors")


def _module(
    name: str, tensors: Mapping[str, str], file: TensorFile, size: tuple[int, int], settings: LoraSettings
) -> LoraModule:
    rows, columns = size
    if missing := [half for half in "AB" if half not in tensors]:
        raise InvalidAdapter(f"{name} lacks its lora_{missing[0]}; the file is incomplete")
    if settings.dora != ("M" in tensors):
        raise InvalidAdapter(
            f"{name} lacks its lora_magnitude_vector, which use_dora asks for"
            if settings.dora
            else f"{name} has a lora_magnitude_vector, but use_dora is not set"
        )
    rank = settings.rank_of(name)
    expected = {"A": (rank, columns), "B": (rows, rank), "M": (rows,)}
    for kind, tensor in tensors.items():
        shape = file.entries[tensor].shape
        if shape != expected[kind]:
            raise InvalidAdapter(
                f"{tensor} has the shape {list(shape)}; rank {rank} on the base's {name} takes {list(expected[kind])}"
            )
    return LoraModule(
        name, rows, columns, rank, settings.scaling_of(name), tensors["A"], tensors["B"], tensors.get("M")
    )


def _check_copy(name: str, file: TensorFile, linears: Mapping[str, tuple[int, int]]) -> None:
    match = _COPY.fullmatch(name.removeprefix(_PREFIX))
    size = linears.get(match["module"]) if match else None
    shape = file.entries[name].shape
    if size is None or shape not in {size, size[:1]}:
        raise UnsupportedFormat(f"{name} has the shape {list(shape)}: a resized vocabulary is not served")


def _check_numbers(modules: Iterable[LoraModule], file: TensorFile) -> None:
    changes = False
    for module in modules:
        for _, tensor in module.tensors:
            if not file.is_finite(tensor):
                raise InvalidAdapter(f"{tensor} holds NaN or infinity; the training that made it failed")
            breathe()
        changes = changes or not (file.is_zero(module.a) or file.is_zero(module.b))
    if not changes:
        raise InvalidAdapter("the adapter would change nothing: in every module A or B is all zero, as before training")


def _left_out(
    settings: LoraSettings, found: Mapping[str, object], linears: Mapping[str, tuple[int, int]]
) -> tuple[str, ...]:
    """A warning when the config targets linears of the base that the file has nothing for."""
    ends = tuple(f".{target}" for target in settings.targets or ())
    named = [name for name in linears if f".{name}".endswith(ends)] if ends else []
    left_out = sorted(name for name in named if name not in found)
    return (f"target_modules names {_some(left_out, 'module')} without tensors in the file",) if left_out else ()


def _missing(folder: Path, name: str) -> str:
    pickled = sorted(p.name for p in folder.glob("adapter_model.*") if p.suffix in {".bin", ".pt", ".pth", ".ckpt"})
    if name == WEIGHTS and pickled:
        return (
            f"the adapter has only {pickled[0]!a}; files of that format can run code and are never read. "
            "Save it with save_pretrained(safe_serialization=True)"
        )
    return f"the folder holds no {name}, so it is no PEFT adapter"


def _some(names: list[str], noun: str) -> str:
    """The first of `names`, safe to print, and how many there are."""
    shown = ", ".join(ascii(name)[1:-1][:120] for name in names[:_SHOWN])
    return f"{len(names)} {noun}{'s' if len(names) > 1 else ''} ({shown}{', ...' if len(names) > _SHOWN else ''})"
