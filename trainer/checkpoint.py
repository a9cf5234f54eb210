"""Checkpoints: whole or not there at all, hashed, and without pickles. The adapter in one is ready to be loaded.

A checkpoint is the folder `checkpoint-STEP`. What is trained is `adapter/`, a PEFT folder with its origin beside it, or
`model/`, a model folder, when the whole model is. `optimizer.safetensors` holds the numbers of the optimizer and of
chance, `state.json` the counters, `files.json` the hash of each file.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
from safetensors import SafetensorError
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from ..serve.adapters.adapter import CONFIG, WEIGHTS, Limits, read_adapter
from ..serve.adapters.digest import digest_of, sha256_of
from ..serve.adapters.durable import TEMPORARY, sync_folder, write_synced
from ..serve.adapters.origin import MANIFEST
from ..serve.contract.adapters import AdapterOrigin
from .divergence import Health

ADAPTER = "adapter"
MODEL = "model"
CARD = "README.md"
OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"
FILES = "files.json"
FORMAT = 1
_ASIDE = f"{TEMPORARY}old-"
_NAME = re.compile(r"checkpoint-(\d{1,12})")


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Where training stands after `step` steps.

    The next batch is number `index` of `epoch`. `best_loss` is the lowest that was measured, at `best_step`, and
    `worse` counts the measurements since. `unmeasured`: the measurement that is due after `step` was not made yet.
    `lessons` and `base` name what it was trained on.
    """

    step: int
    epoch: int = 0
    index: int = 0
    trained_tokens: int = 0
    best_step: int = 0
    best_loss: float | None = None
    worse: int = 0
    unmeasured: bool = False
    health: Health = Health()
    lessons: str = ""
    base: str = ""
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One that is whole. Its tensors are read when they are asked for."""

    folder: Path
    state: State

    @property
    def adapter(self) -> Path | None:
        """The PEFT folder; None when whole models are trained."""
        return self._there(ADAPTER)

    @property
    def model(self) -> Path | None:
        """The model folder; None when adapters are trained."""
        return self._there(MODEL)

    def tensors(self) -> dict[str, Tensor]:
        """What is trained, by name."""
        if self.adapter:
            return load_file(self.adapter / WEIGHTS)
        found: dict[str, Tensor] = {}
        for path in sorted((self.folder / MODEL).glob("*.safetensors")):
            found |= load_file(path)
        return found

    def optimizer_tensors(self) -> dict[str, Tensor]:
        return load_file(self.folder / OPTIMIZER)

    def _there(self, name: str) -> Path | None:
        path = self.folder / name
        return path if path.is_dir() else None


class Product(Protocol):
    """What is trained, in files. `name` is that of their folder, ADAPTER or MODEL."""

    @property
    def name(self) -> str: ...

    def write(self, folder: Path) -> None:
        """Writes all of it into the empty `folder`, synced. Raises InvalidAdapter or ModelError for no numbers."""
        ...


@dataclass(frozen=True, slots=True)
class AdapterProduct:
    """A PEFT folder. `linears` are those of the base, `origin` and `card` say how the adapter was made."""

    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any]
    origin: AdapterOrigin
    linears: Mapping[str, tuple[int, int]]
    card: str = ""

    @property
    def name(self) -> str:
        return ADAPTER

    def write(self, folder: Path) -> None:
        write_synced(folder / CONFIG, _json(self.config))
        write_synced(folder / WEIGHTS, save(dict(self.tensors), metadata={"format": "pt"}))
        write_synced(folder / CARD, self.card.encode())
        # Tied to these very weights by their digest.
        digest = digest_of(read_adapter(folder, self.linears, Limits(max_rank=1024)))
        write_synced(folder / MANIFEST, _json(msgspec.structs.asdict(self.origin) | {"digest": digest}))


@dataclass(frozen=True, slots=True)
class Contents:
    """What goes into a checkpoint."""

    state: State
    product: Product
    optimizer: Mapping[str, Tensor]


def save_checkpoint(root: Path, contents: Contents) -> Checkpoint:
    """Writes a checkpoint under `root`, replacing one of the same step.

    Raises OSError when the disk is full, and leaves what was there before. Raises InvalidAdapter or ModelError for
    numbers that are not finite.
    """
    target = root / f"checkpoint-{contents.state.step}"
    staged = root / f"{TEMPORARY}{target.name}"
    shutil.rmtree(staged, ignore_errors=True)
    product = staged / contents.product.name
    product.mkdir(parents=True)
    try:
        contents.product.write(product)
        _write_tensors(staged / OPTIMIZER, contents.optimizer)
        write_synced(staged / STATE, _json(contents.state))
        names = [str(path.relative_to(staged)) for path in sorted(staged.rglob("*")) if path.is_file()]
        write_synced(staged / FILES, _json({name: sha256_of(staged / name) for name in names}))
        sync_folder(product)
        sync_folder(staged)
        if target.exists():
            # Put aside rather than removed: killed in between, there must still be one of the two.
            target.rename(root / f"{_ASIDE}{target.name}")
        staged.rename(target)
        sync_folder(root)
        shutil.rmtree(root / f"{_ASIDE}{target.name}", ignore_errors=True)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return Checkpoint(target, contents.state)


def checkpoints(root: Path) -> list[Checkpoint]:
    """All that are whole, the newest first. What a killed process left unfinished is removed, damaged ones are not."""
    for aside in root.glob(f"{_ASIDE}checkpoint-*"):
        if not (target := root / aside.name.removeprefix(_ASIDE)).exists():
            aside.rename(target)
    for leftover in root.glob(f"{TEMPORARY}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    numbered = [(int(match[1]), path) for path in root.glob("checkpoint-*") if (match := _NAME.fullmatch(path.name))]
    found = (_read(path) for _, path in sorted(numbered, reverse=True))
    return [checkpoint for checkpoint in found if checkpoint is not None]


def prune(root: Path, keep: int, best_step: int) -> None:
    """Removes all but the newest `keep` checkpoints and the one of `best_step`."""
    numbered = sorted(
        (int(match[1]), path) for path in root.glob("checkpoint-*") if (match := _NAME.fullmatch(path.name))
    )
    for step, path in numbered[:-keep]:
        if step != best_step:
            shutil.rmtree(path)


def _read(folder: Path) -> Checkpoint | None:
    """The checkpoint in `folder`; None when a file is missing or is not what was written."""
    try:
        files = msgspec.json.decode((folder / FILES).read_bytes(), type=dict[str, str])
        if any(sha256_of(folder / name) != digest for name, digest in files.items()):
            return None
        state = msgspec.json.decode((folder / STATE).read_bytes(), type=State)
    except (OSError, msgspec.MsgspecError, SafetensorError):
        return None
    return Checkpoint(folder, state) if state.format == FORMAT and STATE in files else None


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A safetensors file on disk, written from where the tensors lie: those of a whole model fit in memory once."""
    save_file(dict(tensors), path)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _json(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"
