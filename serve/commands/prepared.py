"""The prepared base model that a command works with when no server tells it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..contract.errors import ModelError
from ..settings import Settings

if TYPE_CHECKING:
    from ..contract.adapters import AdapterManifest
    from ..contract.base import BaseManifest


def prepared_base(settings: Settings) -> Path:
    """The entry folder of the model that the settings name, in the form that would be served where there is one.

    Nothing is fetched or prepared. Raises ModelError, saying how to prepare it.
    """
    from ..base.plan import QUANTS
    from ..base.prepare import PREPARE_VERSION, default_quant, is_entry
    from ..base.source import parse_source, source_key

    source = parse_source(settings.model)
    codecs: list[str] = [settings.quant]
    if settings.quant == "auto":
        first = "int4" if settings.device == "cpu" else default_quant()
        codecs = [first, *(codec for codec in QUANTS if codec != first)]
    for codec in codecs:
        folder = settings.home / "models" / f"{source.name}-{codec}-{source_key(source, codec, PREPARE_VERSION)}"
        if is_entry(folder):
            return folder
    raise ModelError(f"model {settings.model} is not prepared here; `tunechat pull {settings.model}` does that")


def prepared_manifest(settings: Settings) -> BaseManifest:
    """The manifest of `prepared_base`."""
    from ..base.entry import read_manifest

    return read_manifest(prepared_base(settings))


def base_of(version: AdapterManifest, settings: Settings, *, is_chosen: bool) -> Path:
    """The entry folder of the base that `version` was trained on, or of the model in the settings when `is_chosen`.

    An adapter that does not say what it was trained on belongs to the model in the settings. Raises ModelError when it
    is not prepared here.
    """
    from ..base.models import list_models

    if is_chosen or version.source_fingerprint is None:
        return prepared_base(settings)
    models = [m for m in list_models(settings.home) if m.manifest.source_fingerprint == version.source_fingerprint]
    if not models:
        said = f" ({version.base})" if version.base else ""
        raise ModelError(f"the model that {version.ref.id} was trained on{said} is not prepared here; name it, --model")
    models.sort(key=lambda model: model.manifest.weights_fingerprint != version.weights_fingerprint)
    return settings.home / models[0].path
