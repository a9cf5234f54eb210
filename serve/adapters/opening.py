"""A stored version, opened: its manifest, and its numbers only as what the digest names."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ..contract.adapters import ADAPTER_FORMAT, AdapterManifest, AdapterRef
from ..contract.base import BaseManifest
from ..contract.errors import InvalidAdapter
from .adapter import Adapter, Limits, read_adapter
from .digest import digest_of
from .origin import MANIFEST, check_origin


def read_version(folder: Path) -> AdapterManifest | None:
    """The manifest in `folder`, or None when it is no version of this format under its own name and number."""
    if folder.is_symlink():
        return None
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=AdapterManifest)
    except (OSError, msgspec.MsgspecError):
        return None
    is_ours = (manifest.format, manifest.name, str(manifest.number)) == (
        ADAPTER_FORMAT,
        folder.parent.name,
        folder.name,
    )
    return manifest if is_ours else None


def open_version(folder: Path, version: AdapterManifest, base: BaseManifest, limits: Limits) -> Adapter:
    """The numbers of `version`, which lies in `folder`, checked anew for `base`.

    Raises BaseModelMismatch when it was trained on another model, InvalidAdapter when it does not fit the base or is
    not the content that its digest names.
    """
    check_origin(version, base)
    adapter = read_adapter(folder, base.linears, limits)
    if digest_of(adapter) != version.digest:
        raise InvalidAdapter(f"{version.ref.id} was changed on disk; load the adapter again")
    return adapter


def open_by_ref(folder: Path, ref: AdapterRef, base: BaseManifest, limits: Limits) -> Adapter:
    """As `open_version`, for who knows the version by its digest alone. Raises InvalidAdapter when `folder` holds no
    such version."""
    version = read_version(folder)
    if version is None or version.digest != ref.digest:
        raise InvalidAdapter(f"{ref.id} is not where it was stored; load the adapter again")
    return open_version(folder, version, base, limits)
