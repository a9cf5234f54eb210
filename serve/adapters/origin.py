"""Which base an adapter was made for, as far as it says so, and whether that is the base it is to be served on."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ..contract.adapters import AdapterOrigin
from ..contract.base import BaseManifest
from ..contract.errors import BaseModelMismatch, InvalidAdapter
from .json_file import read_object

MANIFEST = "manifest.json"


class _Claimed(AdapterOrigin, frozen=True, kw_only=True):
    digest: str | None = None


def read_origin(folder: Path, digest: str, base: str) -> AdapterOrigin:
    """The origin that the `manifest.json` beside a PEFT folder states, when it is one of ours and of these weights.

    `digest` is that of the weights in the folder, `base` the name that their config gives the base. A folder without
    such a manifest, or with one of other weights, has an unknown origin. Raises InvalidAdapter for one of ours that
    cannot be read.
    """
    unknown = AdapterOrigin(base=base)
    if not (folder / MANIFEST).is_file():
        return unknown
    stated = read_object(folder / MANIFEST)
    if "source_fingerprint" not in stated:
        return unknown
    try:
        claimed = msgspec.convert(stated, _Claimed)
    except msgspec.ValidationError as error:
        raise InvalidAdapter(f"{MANIFEST} of the adapter is wrong: {error}") from error
    if claimed.digest is not None and claimed.digest != digest:
        return unknown
    return AdapterOrigin(**{name: getattr(claimed, name) for name in AdapterOrigin.__struct_fields__})


def check_origin(origin: AdapterOrigin, base: BaseManifest) -> tuple[str, ...]:
    """What cannot be vouched for, as warnings. Raises BaseModelMismatch for an adapter of another source model."""
    if origin.source_fingerprint is None:
        said = f" (it names {origin.base!a})" if origin.base else ""
        return (f"which model it was trained on cannot be checked{said}; it is served on {base.name}",)
    if origin.source_fingerprint != base.source_fingerprint:
        raise BaseModelMismatch(
            f"the adapter was trained on another model ({ascii(origin.base) if origin.base else 'of unknown name'}) "
            f"than the one served ({base.name}); its answers would be noise"
        )
    warnings = []
    if origin.weights_fingerprint is None:
        warnings.append(f"which quantisation of {base.name} it was trained on is not known")
    elif origin.weights_fingerprint != base.weights_fingerprint:
        warnings.append(f"it was trained on another quantisation of {base.name}; answers may differ a little")
    if origin.template_hash and origin.template_hash != base.template_hash:
        warnings.append("it was trained with another chat template than the one served")
    return tuple(warnings)
