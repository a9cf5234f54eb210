"""Makes a base model ready to be served: fetched, quantised, written in the layout the kernels read, published."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from ..contract.base import MANIFEST_FORMAT, BaseManifest
from ..contract.errors import ModelError
from .architecture import architecture_of, check_served, context_length_of
from .entry import CONFIG, MANIFEST, WEIGHTS, read_manifest, sha256_of
from .fetch import Report, SourceModel, fetch
from .json_text import json_bytes
from .plan import QUANTS, Plan, plan
from .publish import exclusive, publishing, sweep, write_synced
from .safetensors_file import write_tensors
from .source import Source, parse_source, source_key

# Part of every entry's name: raised when the same source would be written in another way.
PREPARE_VERSION = 2


def default_quant() -> str:
    """The codec that suits this machine: "nf4" where there is a CUDA device, else "int4"."""
    import torch

    return "nf4" if torch.cuda.is_available() else "int4"


def prepare(model: str, *, quant: str | None = None, home: Path, report: Report) -> Path:
    """The entry folder of `model` under `home/models`, made if it is not there yet.

    `report` gets the stage and the fraction done of it, None where that is not known. An entry that exists is returned
    at once, without network or hashing. Of several processes that prepare the same model one works and the others
    wait. Raises ModelError when the model cannot be fetched, read or served.
    """
    source = parse_source(model)
    codec = quant or default_quant()
    if codec not in QUANTS:
        raise ModelError(f"quantisation {codec!r} is not known; choose one of {', '.join(QUANTS)}")
    models = home / "models"
    target = models / f"{source.name}-{codec}-{source_key(source, codec, PREPARE_VERSION)}"
    if is_entry(target):
        return target
    try:
        models.mkdir(parents=True, exist_ok=True)
        sweep(models)
        with exclusive(models, target.name, lambda: report("wait", None)):
            if not is_entry(target):
                fetched = fetch(source, home, report, check_served)
                with publishing(target) as folder:
                    _write(folder, source, codec, fetched, report)
    except OSError as error:
        raise ModelError(f"{source.name} cannot be prepared: {error.strerror or error}") from error
    report("ready", 1.0)
    return target


def is_entry(folder: Path) -> bool:
    """Whether `folder` is a prepared model of the format that is read now."""
    try:
        read_manifest(folder)
    except ModelError:
        return False
    return True


def _write(folder: Path, source: Source, quant: str, model: SourceModel, report: Report) -> None:
    layout = plan(model.checkpoint, quant)
    config = _served_config(model.checkpoint.config)
    for name, content in {CONFIG: json_bytes(config), **model.files}.items():
        write_synced(folder / name, content)
    write_tensors(folder / WEIGHTS, layout.planned, layout.metadata, lambda done: report("convert", done))
    report("hash", None)
    manifest = _manifest(folder, source, model, config, layout)
    write_synced(folder / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=1))


def _manifest(
    folder: Path, source: Source, model: SourceModel, config: Mapping[str, Any], layout: Plan
) -> BaseManifest:
    files = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
    return BaseManifest(
        format=MANIFEST_FORMAT,
        name=source.name,
        source=source.spec,
        source_fingerprint=model.fingerprint,
        weights_fingerprint=files[WEIGHTS],
        quant=layout.quant,
        layout=layout.layout,
        architecture=architecture_of(config),
        context_length=context_length_of(config),
        vocab_size=int(config["vocab_size"]),
        eos_token_ids=_eos_ids(config, model.files),
        parameters=layout.parameters,
        weight_bytes=(folder / WEIGHTS).stat().st_size,
        template_hash=_template_hash(model.files),
        files=files,
        created=int(time.time()),
        linears=layout.linears,
        converted_from=model.converted_from,
    )


def _served_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The source's config without what names code to run."""
    return {key: value for key, value in config.items() if key not in {"auto_map", "custom_pipelines"}}


def _eos_ids(config: Mapping[str, Any], files: Mapping[str, bytes]) -> tuple[int, ...]:
    """The generation config's ids where it has any, else the config's: that is how transformers reads them."""
    generation = json.loads(files.get("generation_config.json", b"{}"))
    value = generation.get("eos_token_id", config.get("eos_token_id"))
    ids = value if isinstance(value, list) else [value]
    return tuple(i for i in ids if isinstance(i, int) and not isinstance(i, bool))


def _template_hash(files: Mapping[str, bytes]) -> str:
    """SHA-256 of the chat template's text; empty when there is none."""
    template = json.loads(files.get("tokenizer_config.json", b"{}")).get("chat_template")
    return hashlib.sha256(template.encode()).hexdigest() if isinstance(template, str) else ""
