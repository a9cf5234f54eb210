"""An adapter merged into its base: which weights are used, what is written, and a note of both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..adapters.adapter import read_adapter
from ..adapters.digest import digest_of
from ..adapters.merging import merge_into
from ..adapters.origin import check_origin
from ..contract.adapters import AdapterManifest
from ..contract.errors import InvalidAdapter
from ..settings import Settings
from .output import Report
from .placing import placed_folder
from .prepared import base_of

_FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")


@dataclass(frozen=True, slots=True)
class Merged:
    """What was merged into what. `weights` is "unquantised" or "dequantised", `origin` where those weights lie."""

    id: str
    digest: str
    path: str
    base: str
    source_fingerprint: str
    weights: str
    origin: str
    dtype: str
    bytes: int
    untied: tuple[str, ...]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def merge_adapter(
    version: AdapterManifest,
    folder: Path,
    target: Path,
    settings: Settings,
    report: Report,
    *,
    dtype: str | None,
    base: Path | None,
    is_chosen: bool,
    force: bool,
) -> Merged:
    """Writes the model that `version`, whose files are in `folder`, makes of its base to the new folder `target`.

    `base` points at the unquantised model; `is_chosen` says that the settings' model is the base. Raises ModelError,
    InvalidAdapter or Conflict; nothing is then written.
    """
    import torch

    from ..base.entry import BaseEntry
    from ..base.full_weights import full_weights
    from ..base.merged_model import is_tied, write_changed

    target = target.absolute()
    with placed_folder(target, "config.json", force=force) as staged, _one_thread():
        entry = BaseEntry.open(base_of(version, settings, is_chosen=is_chosen))
        notes = list(check_origin(version, entry.manifest))
        adapter = read_adapter(folder, entry.manifest.linears)
        if digest_of(adapter) != version.digest:
            raise InvalidAdapter(f"{version.ref.id} was changed on disk; load the adapter again")
        weights = full_weights(entry, settings.home, report, base)
        made = []
        if weights.reason is not None:
            made.append(f"the served {entry.manifest.quant} weights were dequantised for it: {weights.reason}")
        facts = {
            "adapter": version.ref.id,
            "digest": version.digest,
            "base": entry.manifest.name,
            "source_fingerprint": entry.manifest.source_fingerprint,
            "weights": "dequantised" if weights.is_dequantised else "unquantised",
        }
        files = {name: (entry.folder / name).read_bytes() for name in _FILES if (entry.folder / name).is_file()}
        if untied := [module.name for module in adapter.modules if is_tied(weights.tensors.config, module.name)]:
            made.append(f"{', '.join(untied)} shared its weight with the embedding and has one of its own now")
        files["README.md"] = _readme(facts, made)
        written = write_changed(
            staged,
            weights.tensors,
            {module.name: partial(merge_into, adapter=adapter, module=module) for module in adapter.modules},
            dtype=None if dtype is None else getattr(torch, dtype),
            files=files,
            metadata={"tunechat_merge": json.dumps(facts, sort_keys=True)},
            progress=lambda fraction: report("merge", fraction),
        )
    return Merged(
        id=version.ref.id,
        digest=version.digest,
        path=str(target),
        base=entry.manifest.name,
        source_fingerprint=entry.manifest.source_fingerprint,
        weights=facts["weights"],
        origin=weights.origin,
        dtype=written.dtype,
        bytes=written.nbytes,
        untied=written.untied,
        notes=(*notes, *made),
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keeps torch to one thread: memory bounds the work, and beside a server its threads would wait in barriers."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _readme(facts: dict[str, str], notes: list[str]) -> bytes:
    """What the folder is, for people: nothing of the machine that made it, nor what an adapter's file claims."""
    lines = [f"# {facts['base']} with {facts['adapter']}", "", "Merged by tunechat.", ""]
    lines += [f"- {name.replace('_', ' ')}: `{value}`" for name, value in facts.items()]
    lines += [f"- note: {note}" for note in notes]
    return ("\n".join(lines) + "\n").encode()
