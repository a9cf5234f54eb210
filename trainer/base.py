"""The base that a recipe trains on, where it is another form of the model than the one that is served."""

from __future__ import annotations

import sys

from ..serve.base.entry import BaseEntry
from ..serve.base.prepare import prepare
from ..serve.contract.errors import ModelError
from .codec import codec_of
from .recipe import Recipe


def base_of(recipe: Recipe, served: BaseEntry) -> BaseEntry:
    """The prepared model to train on, of the same source as `served`: made beside it when it is not there yet.

    A source that is quantised itself, as the GGUF file of the default model is, has no other weights than those: its
    unquantised form holds them dequantised, and no number of them is lost. Raises ModelError when the source cannot be
    read any more, or holds another model by now.
    """
    manifest = served.manifest
    codec = codec_of(recipe, manifest.quant)
    if codec == manifest.quant:
        return served
    folder = prepare(manifest.source, quant=codec, home=served.folder.parent.parent, report=_report)
    entry = BaseEntry.open(folder)
    if entry.manifest.source_fingerprint != manifest.source_fingerprint:
        raise ModelError(
            f"{manifest.source} holds another model than the one that is served, which was prepared from it before; "
            "prepare it again and restart the server"
        )
    return entry


def _report(stage: str, done: float | None) -> None:
    if done is None or done >= 1:
        print(f"base model: {stage}", file=sys.stderr, flush=True)
