"""Takes a PEFT folder in: copies it aside, checks the copy, and writes down what it is."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from ..contract.adapters import ADAPTER_FORMAT, AdapterManifest, AdapterOrigin
from ..contract.base import BaseManifest
from ..contract.errors import Conflict, UnsupportedFormat
from .adapter import CONFIG, WEIGHTS, Adapter, Limits, read_adapter, require_files
from .background import as_this_thread
from .digest import digest_of, sha256_of
from .durable import copy_bounded, sync_file, sync_folder, write_synced
from .json_file import MAX_JSON
from .origin import MANIFEST, check_origin, read_origin

# The model card that people read. It is kept as it is, and nothing depends on it.
CARD = "README.md"
MAX_CARD = 256 << 10


@dataclass(frozen=True, slots=True)
class Intake:
    """How a folder is taken in.

    `origin` is given by whoever made the adapter here; without it the folder's own manifest is asked. `is_settled` is
    called after copying and says whether the folder was left alone meanwhile.
    """

    base: BaseManifest
    limits: Limits = field(default_factory=Limits)
    origin: AdapterOrigin | None = None
    is_settled: Callable[[], bool] | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """A copy that passed every check and is on disk. `files` maps each file to its SHA-256."""

    adapter: Adapter
    files: dict[str, str]
    digest: str
    origin: AdapterOrigin
    warnings: tuple[str, ...]


def copy_in(source: Path, staged: Path, intake: Intake) -> Checked:
    """Copies the adapter in `source`, and its model card, into the empty folder `staged` and checks the copy.

    Raises InvalidAdapter (or its subclasses) for a bad one, Conflict when it was changed while it was copied.
    """
    require_files(source)
    copy_bounded(_file_in(source, CONFIG), staged / CONFIG, MAX_JSON)
    copy_bounded(_file_in(source, WEIGHTS), staged / WEIGHTS, intake.limits.max_bytes)
    has_manifest = (source / MANIFEST).is_file()
    if has_manifest:
        copy_bounded(_file_in(source, MANIFEST), staged / MANIFEST, MAX_JSON)
    _copy_card(source, staged)
    if intake.is_settled is not None and not intake.is_settled():
        raise Conflict(f"{source.name} was changed while it was read; it is read again when it has settled")
    # Waiting for the disk and hashing take as long as the checks, and need nothing of them.
    with ThreadPoolExecutor(1, thread_name_prefix="seal", initializer=as_this_thread()) as aside:
        sealed = aside.submit(_seal, staged)
        adapter = read_adapter(staged, intake.base.linears, intake.limits)
        digest = digest_of(adapter)
        files = sealed.result()
    origin = intake.origin or read_origin(staged, digest, adapter.settings.base)
    if has_manifest:
        (staged / MANIFEST).unlink()
    return Checked(adapter, files, digest, origin, (*check_origin(origin, intake.base), *adapter.warnings))


def finish(staged: Path, name: str, number: int, checked: Checked) -> AdapterManifest:
    """Writes the manifest into the checked copy, last of all, and makes its files read-only."""
    files, adapter = checked.files, checked.adapter
    manifest = AdapterManifest(
        **msgspec.structs.asdict(checked.origin),
        format=ADAPTER_FORMAT,
        name=name,
        number=number,
        digest=checked.digest,
        variant=adapter.settings.variant,
        rank=adapter.rank,
        alpha=adapter.settings.alpha,
        targets=adapter.targets,
        modules=len(adapter.modules),
        parameters=adapter.parameters,
        bytes=adapter.nbytes,
        size=sum((staged / file).stat().st_size for file in files),
        created=int(time.time()),
        files=files,
        warnings=checked.warnings,
    )
    for file in files:
        os.chmod(staged / file, 0o444)
    write_synced(staged / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=1))
    sync_folder(staged)
    return manifest


def _seal(staged: Path) -> dict[str, str]:
    """Waits until the copied files are on disk, and hashes them."""
    files = [file for file in (CONFIG, WEIGHTS, CARD) if (staged / file).is_file()]
    for file in files:
        sync_file(staged / file)
    return {file: sha256_of(staged / file) for file in files}


def _copy_card(source: Path, staged: Path) -> None:
    """Copies the model card; one that is too large, or no ordinary file, is left out, for the adapter is good."""
    if not (source / CARD).is_file():
        return
    try:
        copy_bounded(_file_in(source, CARD), staged / CARD, MAX_CARD)
    except UnsupportedFormat:
        (staged / CARD).unlink(missing_ok=True)


def _file_in(folder: Path, name: str) -> Path:
    """The file `name` of `folder`. Links may lead within the folder, or into the blobs of a Hugging Face cache."""
    allowed = [folder.resolve()]
    if folder.parent.name == "snapshots":
        allowed.append(folder.parent.parent.resolve() / "blobs")
    path = (folder / name).resolve()
    if not any(path.is_relative_to(root) for root in allowed):
        raise UnsupportedFormat(f"{name} is a link that leads out of the adapter's folder; put the file itself there")
    return path
