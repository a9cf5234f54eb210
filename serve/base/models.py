"""The prepared models of a home folder: listed, found, removed."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from ..contract.base import BaseManifest
from ..contract.errors import ModelError, ModelNotFound
from .entry import read_manifest
from .publish import exclusive


@dataclass(frozen=True, slots=True)
class PreparedModel:
    """One entry. `path` is relative to the home folder, `nbytes` counts all its files."""

    path: Path
    nbytes: int
    manifest: BaseManifest


def list_models(home: Path) -> list[PreparedModel]:
    """All whole entries under `home`, newest first. What cannot be read is left out."""
    root = home / "models"
    found = []
    for folder in root.iterdir() if root.is_dir() else ():
        if folder.name.startswith(".") or folder.is_symlink() or not folder.is_dir():
            continue
        try:
            manifest = read_manifest(folder)
        except ModelError:
            continue
        nbytes = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
        found.append(PreparedModel(folder.relative_to(home), nbytes, manifest))
    return sorted(found, key=lambda model: (-model.manifest.created, model.path.name))


def remove_model(home: Path, name: str, quant: str | None = None) -> list[PreparedModel]:
    """Removes the entries that are called `name` (a model name or an entry folder's), and returns them.

    A server that runs on one goes on: its memory stays mapped. Raises ModelNotFound when there is none.
    """
    root = home / "models"
    chosen = [
        model
        for model in list_models(home)
        if name in (model.manifest.name, model.path.name) and quant in (None, model.manifest.quant)
    ]
    if not chosen:
        raise ModelNotFound(f"no prepared model is called {name!r}; `tunechat models` lists them")
    for model in chosen:
        with exclusive(root, model.path.name, lambda: None):
            # Renamed first: an entry is there whole or not at all, also while its files go.
            doomed = root / f".tmp-{model.path.name}-removed"
            (home / model.path).rename(doomed)
            shutil.rmtree(doomed)
    return chosen
