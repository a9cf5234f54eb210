"""What an adapter version says of itself, and how it is named. Written once beside its weights."""

from __future__ import annotations

from enum import StrEnum

import msgspec

ADAPTER_FORMAT = 1


class Variant(StrEnum):
    """How an adapter's product is scaled and combined. DoRA may use either scaling."""

    LORA = "lora"
    RSLORA = "rslora"
    DORA = "dora"


class AdapterState(StrEnum):
    """Where a version is in its life. A quarantined one was refused and serves nobody."""

    STORED = "stored"
    LOADING = "loading"
    LOADED = "loaded"
    DRAINING = "draining"
    QUARANTINED = "quarantined"


class AdapterOrigin(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of how an adapter was made; None and "" where it is not.

    `source_fingerprint` and `weights_fingerprint` are those of the base it was trained on (see BaseManifest), `base`
    the name that the adapter gives it, which nobody looks up. `parent` is the digest of the version it was trained
    from, `job` the id of the fine-tuning job that made it, `data` the SHA-256 of what it learned from.
    """

    source_fingerprint: str | None = None
    weights_fingerprint: str | None = None
    base: str = ""
    template_hash: str = ""
    dialect: str = ""
    parent: str | None = None
    job: str = ""
    data: str = ""
    metrics: dict[str, float] = {}


class AdapterManifest(AdapterOrigin, frozen=True, kw_only=True):
    """`manifest.json` of a stored version. It is written last, so a folder without one is no version.

    `digest` is the SHA-256 of all that changes the output, whatever the files are called. `rank` is the largest of any
    module and `alpha` the one of modules without their own. `targets` are the last parts of the modules' names.
    `parameters` counts numbers. `bytes` is the size of the tensors that are used, `size` that of all files. `files`
    maps each file to its SHA-256. `created` is in seconds since 1970. `warnings` say what could not be checked.
    """

    format: int
    name: str
    number: int
    digest: str
    variant: Variant
    rank: int
    alpha: float
    targets: tuple[str, ...]
    modules: int
    parameters: int
    bytes: int
    size: int
    created: int
    files: dict[str, str]
    warnings: tuple[str, ...] = ()

    @property
    def ref(self) -> AdapterRef:
        return AdapterRef(name=self.name, number=self.number, digest=self.digest)


class AdapterRef(msgspec.Struct, frozen=True, kw_only=True):
    """One immutable version. Caches are keyed by `digest`, never by name; replies show `id`."""

    name: str
    number: int
    digest: str

    @property
    def id(self) -> str:
        """The name and the number: `support@3`."""
        return f"{self.name}@{self.number}"
