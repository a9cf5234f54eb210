"""Checkpoints: whole or not there at all, hashed, and without pickles. The adapter in one is ready to be loaded.

A checkpoint is the folder `checkpoint-STEP`: `adapter/` is a PEFT folder with its origin beside it,
`optimizer.safetensors` holds the optimizer's numbers and the state of chance, `state.json` the counters, `files.json`
the hash of each file.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from ..serve.adapters.adapter import CONFIG, WEIGHTS, Limits, read_adapter
from ..serve.adapters.digest import digest_of, sha256_of
from ..serve.adapters.durable import TEMPORARY, sync_folder, write_synced
from ..serve.adapters.origin import MANIFEST
from ..serve.contract.adapters import AdapterOrigin

ADAPTER = "adapter"
OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"
FILES = "files.json"
FORMAT = 1
_NAME = re.compile(r"checkpoint-(\d{1,12})")


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Where training stands after `step` steps.

    The next batch is number `index` of `epoch`. `best_loss` is the lowest that was measured, at `best_step`, and
    `worse` counts the measurements since. `lessons` and `base` name what it was trained on.
    """

    step: int
    epoch: int = 0
    index: int = 0
    trained_tokens: int = 0
    best_step: int = 0
    best_loss: float | None = None
    worse: int = 0
    lessons: str = ""
    base: str = ""
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One that is whole. Its tensors are read when they are asked for."""

    folder: Path
    state: State

    @property
    def adapter(self) -> Path:
        """The PEFT folder."""
        return self.folder / ADAPTER

    def adapter_tensors(self) -> dict[str, Tensor]:
        return load_file(self.adapter / WEIGHTS)

    def optimizer_tensors(self) -> dict[str, Tensor]:
        return load_file(self.folder / OPTIMIZER)


@dataclass(frozen=True, slots=True)
class Contents:
    """What goes into a checkpoint. `linears` are those of the base, `origin` says what the adapter was made from."""

    state: State
    adapter: Mapping[str, Tensor]
    adapter_config: Mapping[str, Any]
    optimizer: Mapping[str, Tensor]
    origin: AdapterOrigin
    linears: Mapping[str, tuple[int, int]]


def save_checkpoint(root: Path, contents: Contents) -> Checkpoint:
    """Writes a checkpoint under `root`, replacing one of the same step.

    Raises OSError when the disk is full, and leaves what was there before. Raises InvalidAdapter for numbers that are
    not finite.
    """
    target = root / f"checkpoint-{contents.state.step}"
    staged = root / f"{TEMPORARY}{target.name}"
    shutil.rmtree(staged, ignore_errors=True)
    adapter = staged / ADAPTER
    adapter.mkdir(parents=True)
    try:
        write_synced(adapter / CONFIG, _json(contents.adapter_config))
        write_synced(adapter / WEIGHTS, save(dict(contents.adapter), metadata={"format": "pt"}))
        write_synced(adapter / MANIFEST, _json(_manifest(adapter, contents)))
        write_synced(staged / OPTIMIZER, save(dict(contents.optimizer)))
        write_synced(staged / STATE, _json(contents.state))
        names = [f"{ADAPTER}/{name}" for name in (CONFIG, WEIGHTS, MANIFEST)] + [OPTIMIZER, STATE]
        write_synced(staged / FILES, _json({name: sha256_of(staged / name) for name in names}))
        sync_folder(adapter)
        sync_folder(staged)
        if target.exists():
            shutil.rmtree(target)
        staged.rename(target)
        sync_folder(root)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return Checkpoint(target, contents.state)


def checkpoints(root: Path) -> list[Checkpoint]:
    """All that are whole, the newest first. What a killed process left unfinished is removed, damaged ones are not."""
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


def _manifest(adapter: Path, contents: Contents) -> dict[str, Any]:
    """The origin, tied to these very weights by their digest."""
    digest = digest_of(read_adapter(adapter, contents.linears, Limits(max_rank=1024)))
    return msgspec.structs.asdict(contents.origin) | {"digest": digest}


def _json(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"
