"""What a prepared base model says of itself. Written once beside its weights, read by every process that uses it."""

from __future__ import annotations

import msgspec

MANIFEST_FORMAT = 1


class BaseManifest(msgspec.Struct, frozen=True, kw_only=True):
    """`manifest.json` of a cache entry; it is written last, so an entry without one is not an entry.

    `source_fingerprint` names the source model (an adapter made for another one is refused); `weights_fingerprint` the
    quantised weights themselves. `layout` is "compact" (fused projections, for the Llama-like forward) or "generic"
    (the names of the transformers class). `files` maps each file of the entry to its SHA-256. `linears` maps every
    linear module of the transformers class, the head included, to its [rows, columns]: the modules an adapter may
    change, under the names that PEFT gives them, whatever the layout fuses. `converted_from` is the architecture of the
    source where `architecture` is another one that computes the same.
    """

    format: int
    name: str
    source: str
    source_fingerprint: str
    weights_fingerprint: str
    quant: str
    layout: str
    architecture: str
    context_length: int
    vocab_size: int
    eos_token_ids: tuple[int, ...]
    parameters: int
    weight_bytes: int
    template_hash: str
    files: dict[str, str]
    created: int
    linears: dict[str, tuple[int, int]] = {}
    converted_from: str = ""
