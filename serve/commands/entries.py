"""The prepared models in TUNECHAT_HOME, read from their manifests alone."""

from __future__ import annotations

import logging
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ..contract.base import BaseManifest
from ..contract.errors import ModelError, ModelNotFound

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """One prepared model: its folder, what its manifest says, and its size on disk in bytes."""

    path: Path
    manifest: BaseManifest
    bytes: int

    def as_json(self) -> dict[str, Any]:
        about = {key: value for key, value in msgspec.to_builtins(self.manifest).items() if key != "files"}
        return {**about, "path": str(self.path), "bytes": self.bytes}


def read_entry(folder: Path) -> Entry:
    """The entry in `folder`. Raises ModelError when its manifest is missing or broken."""
    try:
        manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=BaseManifest)
    except (OSError, msgspec.MsgspecError) as error:
        raise ModelError(f"{folder.name} is no prepared model: {error}") from error
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    return Entry(path=folder, manifest=manifest, bytes=size)


def list_entries(home: Path) -> Iterator[Entry]:
    """Every whole entry below `home`, by folder name; a folder whose manifest cannot be read is logged and left out."""
    models = home / "models"
    for folder in sorted(models.iterdir()) if models.is_dir() else ():
        if folder.name.startswith(".") or not folder.is_dir():
            continue
        try:
            yield read_entry(folder)
        except ModelError as error:
            logger.warning("%s", error.message)


def remove_entries(home: Path, name: str) -> list[Entry]:
    """Removes the entries that `name` means: one folder name, or every form of one model. Raises ModelNotFound."""
    found = [entry for entry in list_entries(home) if name in (entry.path.name, entry.manifest.name)]
    if not found:
        raise ModelNotFound(f"no prepared model is called {name!r}; `tunechat models` lists them")
    for entry in found:
        # Renamed first: a removal that is cut short must not leave half an entry under a name that is looked for.
        aside = entry.path.with_name(f".removed-{uuid.uuid4().hex}")
        entry.path.rename(aside)
        shutil.rmtree(aside)
    return found
