"""Adapters under traffic: stored, loaded, moved, unloaded. The store says what is there, the registry what is served.

The store's work is done in threads, the registry's on the event loop. A change becomes visible in one step, after the
engine has the weights; one that fails leaves everything as it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from ..adapters.adapter import Limits
from ..adapters.names import check_name, parse_id
from ..adapters.origin import check_origin
from ..adapters.registry import AdapterRegistry, Digests, LoadedAdapter
from ..adapters.staging import Intake
from ..adapters.store import AdapterStore, StoredAdapter
from ..contract.adapters import AdapterManifest, AdapterRef, AdapterState
from ..contract.base import BaseManifest
from ..contract.errors import (
    AdapterCapacity,
    Conflict,
    ErrorRecord,
    InvalidRequest,
    ModelNotFound,
    TunechatError,
    Unavailable,
    Unsupported,
)
from .changes import Change, Changes
from .enrolment import Enrolled, read_stored, withdraw
from .ports import Engine
from .settings import ApiSettings
from .special_names import name_warnings

log = logging.getLogger(__name__)

# Stored versions that are made known before others get their turn on the event loop.
_AT_ONCE = 64


class Adapters:
    """All adapters of one server. `open` it when the base is known; before that nothing is served and nothing changes.

    `forget` is told the ids of versions that are gone, so that what is kept by id can go too.
    """

    def __init__(self, engine: Engine, settings: ApiSettings, forget: Callable[[str], None]) -> None:
        self.problems: dict[str, ErrorRecord] = {}
        self.base: BaseManifest | None = None
        self._engine = engine
        self._forget = forget
        self._store = None if settings.adapter_store is None else AdapterStore(settings.adapter_store)
        self._taken = frozenset(name.lower() for name in (settings.model, *settings.model_aliases))
        self._registry = AdapterRegistry()
        self._changes = Changes()
        self._folders: dict[str, Path] = {}
        self._manifests: dict[str, AdapterManifest] = {}
        self._pinned: set[str] = set()
        self._leaving: set[str] = set()

    async def open(self, base: BaseManifest) -> None:
        """Serves every stored version that fits `base`. Nothing is read into memory, and one bad one stops no other."""
        self.base = base
        if self._store is None:
            return
        began = time.monotonic()
        try:
            enrolled = await asyncio.to_thread(read_stored, self._store, base)
        except OSError:
            log.exception("the store of adapters cannot be read")
            return
        for index, one in enumerate(enrolled):
            self._enrol(one)
            if index % _AT_ONCE == 0:
                await asyncio.sleep(0)
        log.info(
            "stored adapters are served",
            extra={"versions": len(self._manifests), "seconds": round(time.monotonic() - began, 3)},
        )

    @property
    def store(self) -> AdapterStore:
        """The store. Raises Unsupported when this server has none, Unavailable before the base is known."""
        if self._store is None:
            raise Unsupported("This server keeps no adapters.")
        if self.base is None:
            raise Unavailable("The model is being loaded; try again in a moment.", code="model_loading")
        return self._store

    def intake(self) -> Intake:
        """How adapters are checked here."""
        if self.base is None:
            raise Unavailable("The model is being loaded; try again in a moment.", code="model_loading")
        rank = self._engine.info.max_adapter_rank if self._engine.info is not None else 0
        return Intake(self.base, Limits(max_rank=rank) if rank else Limits())

    # What requests ask.

    def acquire(self, text: str) -> AdapterRef:
        """The version that `text` means now, which stays until it is released. Raises ModelNotFound."""
        return self._registry.acquire(text)

    def release(self, ref: AdapterRef) -> None:
        """One user less."""
        self._free(self._registry.release(ref))
        if ref.id in self._leaving:
            self._prune(ref.id)

    def knows(self, text: str) -> bool:
        """Whether a request may ask for `text` now."""
        try:
            ref = self._registry.acquire(text)
        except TunechatError:
            return False
        self._free(self._registry.release(ref))
        return True

    def manifest(self, ref: AdapterRef) -> AdapterManifest:
        """What a served version says of itself."""
        return self._manifests[ref.id]

    def served(self) -> tuple[LoadedAdapter, ...]:
        """Everything that is loaded, draining or being loaded."""
        return self._registry.loaded()

    def check_name(self, name: str) -> str:
        """`name` itself. Raises InvalidRequest when it is no name, or the base's."""
        check_name(name)
        if name.lower() in self._taken:
            raise InvalidRequest(f"{name} is the name of the base model; choose another", param="name")
        return name

    # Changes. Each says in the end what is current, and raises Conflict while another change of the name is under way.

    async def publish(self, name: str, folder: Path, *, activate: bool = True) -> AdapterManifest:
        """Stores the PEFT folder as a version, loads it, and lets the bare name mean it when `activate`.

        The same content again is the version that has it. When the engine refuses it, it is not stored either.
        """
        store, intake = self.store, self.intake()
        async with self._changes.begin(self.check_name(name), is_load=True) as change:

            def take_in() -> tuple[AdapterManifest, bool, int | None]:
                before = _stored(store, name)
                manifest = store.publish(name, folder, intake, activate=False)
                numbers = {version.number for version in before.versions} if before else set()
                return manifest, manifest.number not in numbers, before.current if before else None

            manifest, is_new, previous = await asyncio.to_thread(take_in)
            async with self._restoring(manifest, previous, is_new):
                await self._load(change, manifest, is_alias=activate)
        return manifest

    async def adopt(self, manifest: AdapterManifest) -> None:
        """Loads a version that was stored, and made the current one, by somebody else: a watched folder."""
        async with self._changes.begin(self.check_name(manifest.name), is_load=True, wait=True) as change:
            mine = [one for one in self.served() if one.ref.name == manifest.name and one.is_current]
            if not any(one.ref == manifest.ref for one in mine):
                async with self._restoring(manifest, mine[0].ref.number if mine else None, is_new=False):
                    await self._load(change, manifest, is_alias=True)

    async def load(self, text: str) -> AdapterManifest:
        """Serves a stored version again; for a bare name all its versions, of which the current one is loaded."""
        store, (name, number) = self.store, parse_id(text)
        async with self._changes.begin(self.check_name(name), is_load=True) as change:
            stored = await asyncio.to_thread(store.of, name)
            manifest = await asyncio.to_thread(store.show, text)
            change.number = manifest.number
            self._pinned |= {f"{name}@{pinned}" for pinned in stored.pinned}
            await self._load(change, manifest, is_alias=number is None)
            if number is None:
                await self._enrol_others(stored)
        return manifest

    def unload(self, text: str) -> tuple[str, ...]:
        """Forgets a name or a version: new requests fail at once. Returns the ids that running requests still use.

        A load of it that is under way is cancelled. Raises ModelNotFound when there was nothing to forget.
        """
        name, number = parse_id(text)
        mine = [one.ref.id for one in self.served() if one.ref.name == name and number in (None, one.ref.number)]
        try:
            freed = self._registry.unload(text)
        except ModelNotFound:
            if not self._changes.cancel(name, number):
                raise
            return ()
        self._changes.cancel(name, number)
        self._free(freed)
        draining = {one.ref.id for one in self.served()}
        self._leaving.update(mine)
        for gone in mine:
            self._prune(gone)
        log.info("adapter unloaded", extra={"adapter": text})
        return tuple(one for one in mine if one in draining)

    async def activate(self, text: str) -> AdapterManifest:
        """Lets the bare name mean "support@2" from now on."""
        store, (name, number) = self.store, parse_id(text)
        if number is None:
            raise InvalidRequest(f"name the version, for example {name}@1", param="name")
        async with self._changes.begin(self.check_name(name), is_load=True) as change:
            manifest = await asyncio.to_thread(store.show, text)
            previous = (await asyncio.to_thread(store.of, name)).current
            async with self._restoring(manifest, previous, is_new=False):
                await self._load(change, manifest, is_alias=True)
        return manifest

    async def rollback(self, name: str) -> AdapterManifest:
        """Lets the bare name mean what it meant before."""
        store = self.store
        async with self._changes.begin(self.check_name(name), is_load=True) as change:
            previous = (await asyncio.to_thread(store.of, name)).current
            manifest = await asyncio.to_thread(store.rollback, name)
            async with self._restoring(manifest, previous, is_new=False):
                await self._load(change, manifest, is_alias=True)
        return manifest

    async def pin(self, text: str, pinned: bool) -> AdapterManifest:
        """Keeps a version stored, and on the device once it is there; or lets it go again."""
        store, (name, _) = self.store, parse_id(text)
        async with self._changes.begin(name):
            manifest = await asyncio.to_thread(store.show, text)
            identity = manifest.ref.id
            before = set(self._pinned)
            self._pinned = before | {identity} if pinned else before - {identity}
            try:
                if identity in self._manifests:
                    self._pin_on_device(manifest.digest)
                await asyncio.to_thread(store.pin, identity, pinned)
            except BaseException:
                self._pinned = before
                if identity in self._manifests:
                    self._pin_on_device(manifest.digest)
                raise
        return manifest

    async def verify(self, text: str) -> AdapterManifest:
        """Hashes a version's files. Raises InvalidAdapter naming the first that was changed or is gone."""
        return await asyncio.to_thread(self.store.verify, text)

    async def remove(self, text: str) -> tuple[AdapterManifest, ...]:
        """Removes "support@2", or everything under "support", from the server and the disk; returns what is gone.

        Raises Conflict while requests use it, for pinned versions, and for the current one while others are there.
        """
        store, (name, number) = self.store, parse_id(text)
        async with self._changes.begin(name):
            stored = await asyncio.to_thread(store.of, name)
            used = [one for one in self.served() if one.ref.name == name and number in (None, one.ref.number)]
            if busy := next((one for one in used if one.requests), None):
                raise Conflict(
                    f"{busy.ref.id} is used by {busy.requests} requests; unload it, and remove it when they have ended"
                )
            served_before = {one.ref.id for one in used}
            if used:
                self.unload(text)
            try:
                gone = await asyncio.to_thread(store.remove, text)
            except BaseException:
                await self._enrol_others(stored, only=served_before)
                raise
        for manifest in gone:
            self.problems.pop(manifest.ref.id, None)
            self._pinned.discard(manifest.ref.id)
        return gone

    # The steps that changes are made of.

    @contextlib.asynccontextmanager
    async def _restoring(self, manifest: AdapterManifest, previous: int | None, is_new: bool) -> AsyncIterator[None]:
        """Puts the store back when the block fails: the name means `previous`, and a new version is gone."""
        try:
            yield
        except BaseException:
            await asyncio.shield(asyncio.to_thread(withdraw, self.store, manifest, previous, is_new))
            raise

    async def _load(self, change: Change, manifest: AdapterManifest, *, is_alias: bool) -> None:
        """Reads a stored version into memory, then serves it and moves the alias, in that order."""
        began = time.monotonic()
        ref, store = manifest.ref, self.store
        change.number = ref.number
        change.check()
        check_origin(manifest, self.intake().base)
        folder = await asyncio.to_thread(store.folder, manifest)
        load = self._registry.stage(ref, is_alias=is_alias)
        try:
            self._engine.add_adapter(ref, folder)
            await self._engine.load_adapter(ref.digest)
            change.check()
            if is_alias:
                await asyncio.to_thread(store.activate, ref.id)
            change.check()
            freed = self._registry.commit(load)
        except BaseException as error:
            self._free(self._registry.fail(load))
            log.warning("adapter not loaded", extra={"adapter": ref.id, "reason": getattr(error, "message", "")})
            raise
        self._remember(manifest, folder)
        if is_alias:
            self._keep(ref)
        self._free(freed)
        warnings = [*manifest.warnings, *name_warnings(ref.name)]
        log.log(
            logging.WARNING if warnings else logging.INFO,
            "adapter loaded",
            extra={
                "adapter": ref.id,
                "digest": ref.digest,
                "seconds": round(time.monotonic() - began, 4),
                "warnings": warnings,
            },
        )

    def _keep(self, ref: AdapterRef) -> None:
        """Lets a version be asked for by its number whatever the bare name means."""
        self._free(self._registry.commit(self._registry.stage(ref, is_alias=False)))

    def _remember(self, manifest: AdapterManifest, folder: Path) -> None:
        self._manifests[manifest.ref.id] = manifest
        self._folders[manifest.ref.id] = folder
        self._leaving.discard(manifest.ref.id)
        self.problems.pop(manifest.ref.id, None)
        if manifest.ref.id in self._pinned:
            try:
                self._pin_on_device(manifest.digest)
            except AdapterCapacity as error:
                log.warning("adapter not pinned", extra={"adapter": manifest.ref.id, "reason": error.message})

    def _enrol(self, one: Enrolled) -> None:
        """Serves a stored version that is read when a request first uses it."""
        ref = one.manifest.ref
        problem = one.problem
        if problem is None:
            try:
                self.check_name(ref.name)
                self._engine.add_adapter(ref, one.folder)
                self._keep(ref)
            except TunechatError as error:
                problem = error.record
        if problem is not None:
            self.problems[ref.id] = problem
            log.warning("stored adapter not served", extra={"adapter": ref.id, "reason": problem.message})
            return
        if one.is_pinned:
            self._pinned.add(ref.id)
        self._remember(one.manifest, one.folder)
        if one.is_current:
            self._free(self._registry.commit(self._registry.stage(ref)))

    async def _enrol_others(self, stored: StoredAdapter, only: set[str] | None = None) -> None:
        """Serves the versions of `stored` that are not served; with `only`, none but those."""
        base = self.base
        if base is None:
            return
        enrolled = await asyncio.to_thread(read_stored, self.store, base, stored)
        served = {one.ref.id for one in self.served() if one.state is AdapterState.LOADED}
        for one in enrolled:
            identity = one.manifest.ref.id
            if identity not in served and (only is None or identity in only):
                self._enrol(one)

    def _pin_on_device(self, digest: str) -> None:
        """Pins weights while any served version that has them is pinned."""
        wanted = any(self._manifests[one].digest == digest for one in self._pinned if one in self._manifests)
        self._engine.pin_adapter(digest, wanted)

    def _free(self, digests: Digests) -> None:
        for digest in digests:
            self._engine.remove_adapter(digest)

    def _prune(self, identity: str) -> None:
        """Drops what is kept of a version that is neither served nor in use any more."""
        if identity not in self._manifests or any(one.ref.id == identity for one in self.served()):
            return
        digest = self._manifests.pop(identity).digest
        del self._folders[identity]
        self._leaving.discard(identity)
        self._forget(identity)
        for other, manifest in self._manifests.items():
            # The same weights under another name: the engine must not look for them where they may be removed.
            if manifest.digest == digest:
                self._engine.add_adapter(manifest.ref, self._folders[other])
                return


def _stored(store: AdapterStore, name: str) -> StoredAdapter | None:
    try:
        return store.of(name)
    except ModelNotFound:
        return None
