"""Which adapters are served: what requests may ask for, and what the engine must know. Lives on the event loop."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..adapters.names import parse_id
from ..adapters.registry import AdapterRegistry, Digests, Load, LoadedAdapter
from ..contract.adapters import AdapterManifest, AdapterRef
from ..contract.errors import AdapterCapacity, TunechatError
from .ports import Engine

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Known:
    """A version that is served or still in use, and where its files are."""

    manifest: AdapterManifest
    folder: Path


class Roster:
    """The served versions by id. The engine is told of a version before requests may ask for it, and to forget weights
    when no version that is served, in use or being loaded has them.

    `forget` is told the ids of versions that are gone, so that what is kept by id can go too.
    """

    def __init__(self, engine: Engine, forget: Callable[[str], None]) -> None:
        self.pinned: set[str] = set()
        self._engine = engine
        self._forget = forget
        self._registry = AdapterRegistry()
        self._known: dict[str, Known] = {}
        self._leaving: set[str] = set()

    def acquire(self, text: str) -> AdapterRef:
        """The version that `text` means now, which stays until it is released. Raises ModelNotFound."""
        return self._registry.acquire(text)

    def release(self, ref: AdapterRef) -> None:
        """One user less."""
        self._free(self._registry.release(ref))
        if ref.id in self._leaving:
            self._prune(ref.id)

    def find(self, text: str) -> AdapterRef | None:
        """The version that a request for `text` would get now; None when it would get none."""
        try:
            ref = self._registry.acquire(text)
        except TunechatError:
            return None
        self._free(self._registry.release(ref))
        return ref

    def knows(self, text: str) -> bool:
        """Whether a request may ask for `text` now."""
        return self.find(text) is not None

    def manifest(self, ref: AdapterRef) -> AdapterManifest:
        """What a version that is served or in use says of itself."""
        return self._known[ref.id].manifest

    def all(self) -> tuple[LoadedAdapter, ...]:
        """Everything that is loaded, draining or being loaded, by name and number."""
        return self._registry.loaded()

    def of(self, text: str) -> list[LoadedAdapter]:
        """The entries of `all` that "support@3" or "support" means."""
        name, number = parse_id(text)
        return [one for one in self.all() if one.ref.name == name and number in (None, one.ref.number)]

    def stage(self, manifest: AdapterManifest, folder: Path, *, is_alias: bool) -> Load:
        """Begins a load: the engine knows the version, requests do not. End it with `commit` or `fail`."""
        load = self._registry.stage(manifest.ref, is_alias=is_alias)
        try:
            self._engine.add_adapter(manifest.ref, folder)
        except BaseException:
            self.fail(load)
            raise
        return load

    def commit(self, load: Load, manifest: AdapterManifest, folder: Path) -> None:
        """Lets requests ask for the version, by its number whatever the bare name will mean. Raises Conflict."""
        freed = self._registry.commit(load)
        self._known[manifest.ref.id] = Known(manifest, folder)
        self._leaving.discard(manifest.ref.id)
        if load.is_alias:
            freed += self._registry.commit(self._registry.stage(manifest.ref, is_alias=False))
        self._free(freed)
        if manifest.ref.id in self.pinned:
            try:
                self.pin(manifest.ref.id)
            except AdapterCapacity as error:
                log.warning("adapter not pinned", extra={"adapter": manifest.ref.id, "reason": error.message})

    def fail(self, load: Load) -> None:
        """Ends a load that did not succeed."""
        self._free(self._registry.fail(load))

    def unload(self, text: str) -> tuple[str, ...]:
        """Forgets a name or a version, and returns the ids that running requests still use. Raises ModelNotFound."""
        mine = [one.ref.id for one in self.of(text)]
        self._free(self._registry.unload(text))
        self._leaving.update(mine)
        draining = {one.ref.id for one in self.of(text)}
        for identity in mine:
            self._prune(identity)
        return tuple(one for one in mine if one in draining)

    def pin(self, identity: str) -> None:
        """Pins the weights of a version on the device while any served version that has them is in `pinned`.

        Raises AdapterCapacity.
        """
        known = self._known.get(identity)
        if known is not None:
            digest = known.manifest.digest
            held = (self._known[one].manifest.digest for one in self.pinned if one in self._known)
            self._engine.pin_adapter(digest, digest in held)

    def _free(self, digests: Digests) -> None:
        for digest in digests:
            self._engine.remove_adapter(digest)

    def _prune(self, identity: str) -> None:
        """Drops what is kept of a version that is neither served nor in use any more."""
        if identity not in self._known or any(one.ref.id == identity for one in self.of(identity)):
            return
        digest = self._known.pop(identity).manifest.digest
        self._leaving.discard(identity)
        self._forget(identity)
        for other in self._known.values():
            # The same weights under another name: the engine must not look for them where they may be removed.
            if other.manifest.digest == digest:
                self._engine.add_adapter(other.manifest.ref, other.folder)
                return
