"""Which weights a request means: the base, an adapter's version, or several with weights; and how replies name them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

from ..contract.adapters import AdapterRef
from ..contract.errors import InvalidRequest, ModelNotFound, TunechatError
from ..contract.messages import AdapterUse

FINGERPRINT_DIGITS = 12
_SHOWN = 64


class Weighted(Protocol):
    """One entry of a request's `adapters`."""

    @property
    def name(self) -> str: ...

    @property
    def weight(self) -> float: ...


class Lender(Protocol):
    """Who lends versions: what was acquired stays as it is until it is released."""

    def acquire(self, text: str) -> AdapterRef: ...

    def release(self, ref: AdapterRef) -> None: ...


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model as replies name it. `fingerprint` changes when the weights do; `adapters` are versions in use."""

    name: str
    fingerprint: str
    uses: tuple[AdapterUse, ...] = ()
    adapters: tuple[AdapterRef, ...] = ()

    @property
    def headers(self) -> dict[str, str]:
        """What a reply's head says of its weights; nothing for the base alone."""
        return {"x-tunechat-adapter": self.name} if self.adapters else {}


def model_not_found(name: str, param: str = "model") -> ModelNotFound:
    """The one answer to names that nothing here has."""
    return ModelNotFound(f"The model '{name[:_SHOWN]}' does not exist here.", param=param)


def acquire(lender: Lender, name: str, closing: ExitStack, param: str = "model") -> AdapterRef:
    """The version that `name` means now, kept until `closing` ends. Raises ModelNotFound, for impossible names too."""
    try:
        ref = lender.acquire(name)
    except TunechatError as error:
        raise model_not_found(name, param) from error
    closing.callback(lender.release, ref)
    return ref


def with_adapter(base: ServedModel, ref: AdapterRef) -> ServedModel:
    """The base with one adapter in full."""
    return ServedModel(
        ref.id, f"{base.fingerprint}_{ref.digest[:FINGERPRINT_DIGITS]}", (AdapterUse(ref.digest),), (ref,)
    )


def composed(
    base: ServedModel,
    model: str,
    wanted: Sequence[Weighted],
    lend: Callable[[str, str], AdapterRef],
    *,
    is_base: bool,
    most: int,
) -> ServedModel:
    """The base with the weighted sum of several adapters. `lend` takes a name and the field it stands in.

    `model` is the base's name, which `is_base` says, or one of the adapters'. Raises InvalidRequest for an adapter
    that is named twice, for more than `most` (0 is no bound), and for a `model` that is none of them.
    """
    if most and len(wanted) > most:
        raise InvalidRequest(f"A request uses at most {most} adapters here.", param="adapters")
    refs = tuple(lend(one.name, f"adapters[{index}].name") for index, one in enumerate(wanted))
    known = {one.name for one in wanted} | {ref.id for ref in refs}
    if not is_base and model not in known:
        raise InvalidRequest("With 'adapters', 'model' is the base model or one of the adapters.", param="model")
    if len({ref.digest for ref in refs}) < len(refs):
        raise InvalidRequest("Two of 'adapters' are the same weights; add their weights up.", param="adapters")
    pairs = list(zip(refs, wanted, strict=True))
    uses = tuple(AdapterUse(ref.digest, float(one.weight)) for ref, one in pairs)
    if len(uses) == 1 and uses[0].weight == 1:
        return with_adapter(base, refs[0])
    name = "+".join(f"{ref.id}*{one.weight:g}" for ref, one in pairs)
    return ServedModel(name, f"{base.fingerprint}_{_hash(uses)}", uses, refs)


def _hash(uses: tuple[AdapterUse, ...]) -> str:
    """Says which composition it is, in whatever order the request named its adapters."""
    text = "\n".join(f"{use.digest} {use.weight.hex()}" for use in sorted(uses))
    return hashlib.sha256(text.encode()).hexdigest()[:FINGERPRINT_DIGITS]
