"""Adapters under traffic: stored, loaded, moved, unloaded, removed. The store and what is served change together.

The store's work is done in threads. A change becomes visible in one step, after the engine has the weights; one that
fails leaves everything as it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from ..adapters.adapter import Limits
from ..adapters.background import yield_to_requests
from ..adapters.names import check_name, parse_id
from ..adapters.origin import check_origin
from ..adapters.staging import Intake
from ..adapters.store import AdapterStore, StoredAdapter
from ..contract.adapters import AdapterManifest, AdapterOrigin, AdapterState
from ..contract.base import BaseManifest
from ..contract.errors import (
    Conflict,
    ErrorRecord,
    InvalidRequest,
    ModelNotFound,
    NameTaken,
    TunechatError,
    Unavailable,
    Unsupported,
)
from .changes import Change, Changes
from .enrolment import Enrolled, read_stored, withdraw
from .ports import Engine
from .roster import Roster
from .settings import ApiSettings
from .special_names import name_warnings
from .titles import Titles
from .view import View

log = logging.getLogger(__name__)

# Stored versions that are made known before others get their turn on the event loop.
_AT_ONCE = 64


class Adapters:
    """All adapters of one server. `open` it when the base is known; before that nothing is served and nothing changes.

    Changes say in the end which version they were about, and raise Conflict while another one of the name is under way.
    `problems` says by id why stored versions are not served. Work on files takes its time while `is_busy()`.
    """

    def __init__(
        self,
        engine: Engine,
        settings: ApiSettings,
        forget: Callable[[str], None],
        is_busy: Callable[[], bool] | None = None,
    ) -> None:
        self.roster = Roster(engine, forget)
        self.problems: dict[str, ErrorRecord] = {}
        self._engine = engine
        self._base: BaseManifest | None = None
        self._store = None if settings.adapter_store is None else AdapterStore(settings.adapter_store)
        self.titles = Titles((settings.model, *settings.model_aliases))
        self._taken = frozenset(name.lower() for name in self.titles.bases)
        self._is_shared = not settings.admin_keys
        self._changes = Changes()
        self._intakes = ThreadPoolExecutor(
            1, thread_name_prefix="adapter intake", initializer=yield_to_requests, initargs=(is_busy,)
        )

    async def open(self, base: BaseManifest) -> None:
        """Serves every stored version that fits `base`. Nothing is read into memory, and one bad one stops no other."""
        began, enrolled = time.monotonic(), []
        if self._store is not None:
            try:
                enrolled = await asyncio.to_thread(read_stored, self._store, base)
            except OSError:
                log.exception("the store of adapters cannot be read")
        for index, one in enumerate(enrolled):
            self.titles.note(one.stored)
            self._enrol(one)
            if index % _AT_ONCE == 0:
                await asyncio.sleep(0)
        self._base = base
        counts = {"versions": len(enrolled), "not_served": len(self.problems)}
        log.info("stored adapters are served", extra=counts | {"seconds": round(time.monotonic() - began, 3)})

    @property
    def store(self) -> AdapterStore:
        """The store. Raises Unsupported when this server has none, Unavailable before the base is known."""
        if self._store is None:
            raise Unsupported("This server keeps no adapters.")
        if self._base is None:
            raise _too_early()
        return self._store

    @property
    def intake(self) -> Intake:
        """How adapters are checked here. Raises Unavailable before the base is known."""
        if self._base is None:
            raise _too_early()
        rank = self._engine.info.max_adapter_rank if self._engine.info is not None else 0
        return Intake(self._base, Limits(max_rank=rank) if rank else Limits())

    def check_name(self, name: str) -> str:
        """`name` itself. Raises InvalidRequest when it is no name, or the base's."""
        check_name(name)
        if name.lower() in self._taken:
            raise InvalidRequest(f"{name} is the name of the base model; choose another", param="name")
        return name

    def view(self, sees: Callable[[str], bool]) -> View:
        """What is served of the names whose owner `sees` accepts."""
        return View(self.roster, self.titles, sees)

    def check_free(self, name: str, owner: str) -> str:
        """Whose name it becomes when `owner` publishes under it: what is everybody's stays so, where all may change it.

        Raises NameTaken for another owner's, InvalidRequest for no name or the base's.
        """
        held = self.titles.owner(self.check_name(name))
        if held == "" and self._is_shared:
            return ""
        if held not in (None, owner):
            raise NameTaken(f"the name {name} is taken; choose another", param="name")
        return owner

    async def publish(
        self,
        name: str,
        folder: Path,
        *,
        activate: bool = True,
        owner: str = "",
        label: str = "",
        origin: AdapterOrigin | None = None,
    ) -> AdapterManifest:
        """Stores the PEFT folder as a version, loads it, and lets the bare name mean it when `activate`.

        The same content again is the version that has it, and so is a `label` that a version has already: whoever
        died on the way can publish again. What the engine refuses is not stored either. `owner` is a tenant, or "" for
        everybody. Raises NameTaken for another owner's name.
        """
        store, intake, owner = self.store, replace(self.intake, origin=origin), self.check_free(name, owner)
        async with self._changes.begin(name, is_load=True) as change:

            def take_in() -> tuple[AdapterManifest, StoredAdapter | None, StoredAdapter]:
                before = _stored(store, name)
                manifest = store.publish(name, folder, intake, activate=False, owner=owner, label=label)
                return manifest, before, store.of(name)

            manifest, before, after = await asyncio.get_running_loop().run_in_executor(self._intakes, take_in)
            self.titles.note(after)
            is_new = before is None or manifest not in before.versions
            async with self._restoring(manifest, before.current if before else None, is_new=is_new):
                await self._load(change, manifest, is_alias=activate)
        return manifest

    async def add_checkpoint(
        self,
        name: str,
        folder: Path,
        *,
        owner: str,
        label: str,
        origin: AdapterOrigin | None = None,
        keep: int = 10,
    ) -> AdapterManifest:
        """Stores the PEFT folder as the newest version of `name` and serves it, without reading it into memory.

        Of the versions that have labels the newest `keep` stay; older ones are removed unless requests use them.
        Raises what `publish` raises.
        """
        store, intake, owner = self.store, replace(self.intake, origin=origin), self.check_free(name, owner)
        async with self._changes.begin(name):

            def take_in() -> tuple[AdapterManifest, StoredAdapter]:
                return store.publish(name, folder, intake, owner=owner, label=label), store.of(name)

            manifest, stored = await asyncio.get_running_loop().run_in_executor(self._intakes, take_in)
            self.titles.note(stored)
            await self._enrol_again(stored, {manifest.ref.id})
            for number in sorted({*stored.labels.values()} - stored.pinned)[:-keep]:
                try:
                    await self._remove(stored, f"{name}@{number}")
                except TunechatError as error:
                    log.info("checkpoint kept", extra={"adapter": f"{name}@{number}", "reason": error.message})
        return manifest

    async def adopt(self, manifest: AdapterManifest) -> None:
        """Loads a version that was stored, and made the current one, by somebody else: a watched folder."""
        name = self.check_name(manifest.name)
        async with self._changes.begin(name, is_load=True, wait=True) as change:
            self.titles.note(await asyncio.to_thread(self.store.of, name))
            current = next((one.ref for one in self.roster.of(name) if one.is_current), None)
            if current != manifest.ref:
                async with self._restoring(manifest, None if current is None else current.number):
                    await self._load(change, manifest, is_alias=True)

    async def load(self, text: str) -> AdapterManifest:
        """Serves a stored version again; for a bare name all its versions, of which the current one is loaded."""
        store, (name, number) = self.store, parse_id(text)
        async with self._changes.begin(self.check_name(name), is_load=True) as change:
            stored = await asyncio.to_thread(store.of, name)
            manifest = await asyncio.to_thread(store.show, text)
            self.titles.note(stored)
            self.roster.pinned |= {f"{name}@{pinned}" for pinned in stored.pinned}
            await self._load(change, manifest, is_alias=number is None)
            if number is None:
                await self._enrol_again(stored)
        return manifest

    def unload(self, text: str) -> tuple[str, ...]:
        """Forgets a name or a version: new requests fail at once. Returns the ids that running requests still use.

        A load of it that is under way is cancelled. Raises ModelNotFound when there was nothing to forget.
        """
        name, number = parse_id(text)
        is_cancelled = self._changes.cancel(name, number)
        try:
            draining = self.roster.unload(text)
        except ModelNotFound:
            if not is_cancelled:
                raise
            draining = ()
        log.info("adapter unloaded", extra={"adapter": text, "draining": draining})
        return draining

    async def activate(self, text: str) -> AdapterManifest:
        """Lets the bare name mean "support@2" from now on."""
        store, (name, number) = self.store, parse_id(text)
        if number is None:
            raise InvalidRequest(f"name the version, for example {name}@1", param="name")
        async with self._changes.begin(self.check_name(name), is_load=True) as change:
            manifest = await asyncio.to_thread(store.show, text)
            previous = (await asyncio.to_thread(store.of, name)).current
            async with self._restoring(manifest, previous):
                await self._load(change, manifest, is_alias=True)
        return manifest

    async def rollback(self, name: str) -> AdapterManifest:
        """Lets the bare name mean what it meant before. Raises Conflict when that is nothing."""
        store = self.store
        async with self._changes.begin(self.check_name(name), is_load=True) as change:
            previous = (await asyncio.to_thread(store.of, name)).current
            manifest = await asyncio.to_thread(store.rollback, name)
            async with self._restoring(manifest, previous):
                await self._load(change, manifest, is_alias=True)
        return manifest

    async def pin(self, text: str, pinned: bool) -> AdapterManifest:
        """Keeps a version stored, and on the device once it is there; or lets it go. Raises AdapterCapacity."""
        store, (name, _) = self.store, parse_id(text)
        async with self._changes.begin(name):
            manifest = await asyncio.to_thread(store.show, text)
            identity, before = manifest.ref.id, set(self.roster.pinned)
            self.roster.pinned = before | {identity} if pinned else before - {identity}
            try:
                self.roster.pin(identity)
                await asyncio.to_thread(store.pin, identity, pinned)
            except BaseException:
                self.roster.pinned = before
                self.roster.pin(identity)
                raise
        return manifest

    async def verify(self, text: str) -> AdapterManifest:
        """Hashes a version's files. Raises InvalidAdapter naming the first that was changed or is gone."""
        return await asyncio.to_thread(self.store.verify, text)

    async def remove(self, text: str) -> tuple[AdapterManifest, ...]:
        """Removes "support@2", or everything under "support", from the server and the disk; returns what is gone.

        Raises Conflict while requests use it, for pinned versions, and for the current one while others are there.
        """
        store, (name, _) = self.store, parse_id(text)
        async with self._changes.begin(name):
            return await self._remove(await asyncio.to_thread(store.of, name), text)

    async def _remove(self, stored: StoredAdapter, text: str) -> tuple[AdapterManifest, ...]:
        served = self.roster.of(text)
        if busy := next((one for one in served if one.requests), None):
            raise Conflict(f"{busy.ref.id} is in use ({busy.requests}); unload it, and remove it when that is over")
        if served:
            self.roster.unload(text)
        try:
            gone = await asyncio.to_thread(self.store.remove, text)
        except BaseException:
            await self._enrol_again(stored, {one.ref.id for one in served})
            raise
        self.titles.forget(stored.name, {manifest.number for manifest in gone})
        for manifest in gone:
            self.problems.pop(manifest.ref.id, None)
            self.roster.pinned.discard(manifest.ref.id)
        log.info("adapter removed", extra={"adapter": text})
        return gone

    async def _load(self, change: Change, manifest: AdapterManifest, *, is_alias: bool) -> None:
        """Reads a stored version into memory, moves the alias on disk, then serves it, in that order."""
        began, ref, store = time.monotonic(), manifest.ref, self.store
        change.number = ref.number
        change.check()
        check_origin(manifest, self.intake.base)
        folder = await asyncio.to_thread(store.folder, manifest)
        load = self.roster.stage(manifest, folder, is_alias=is_alias)
        try:
            await self._engine.load_adapter(ref.digest)
            change.check()
            if is_alias:
                await asyncio.to_thread(store.activate, ref.id)
            change.check()
            self.roster.commit(load, manifest, folder)
        except BaseException as error:
            self.roster.fail(load)
            log.warning("adapter not loaded", extra={"adapter": ref.id, "reason": getattr(error, "message", "")})
            raise
        self.problems.pop(ref.id, None)
        warnings = [*manifest.warnings, *name_warnings(ref.name)]
        told = {"adapter": ref.id, "digest": ref.digest, "seconds": round(time.monotonic() - began, 4)}
        level = logging.WARNING if warnings else logging.INFO
        log.log(level, "adapter loaded", extra=told | {"warnings": warnings})

    @contextlib.asynccontextmanager
    async def _restoring(
        self, manifest: AdapterManifest, previous: int | None, *, is_new: bool = False
    ) -> AsyncIterator[None]:
        """Puts the store back when the block fails: the name means `previous`, and a new version is gone."""
        try:
            yield
        except BaseException:
            await asyncio.shield(self._withdraw(manifest, previous, is_new=is_new))
            raise

    async def _withdraw(self, manifest: AdapterManifest, previous: int | None, *, is_new: bool) -> None:
        await asyncio.to_thread(withdraw, self.store, manifest, previous, is_new)
        if is_new:
            self.titles.forget(manifest.name, {manifest.number})

    def _enrol(self, one: Enrolled) -> None:
        """Serves a stored version that is read when a request first uses it."""
        ref, problem = one.manifest.ref, one.problem
        if one.is_pinned:
            self.roster.pinned.add(ref.id)
        try:
            if problem is None:
                self.check_name(ref.name)
                load = self.roster.stage(one.manifest, one.folder, is_alias=one.is_current)
                self.roster.commit(load, one.manifest, one.folder)
        except TunechatError as error:
            problem = error.record
        if problem is not None:
            self.problems[ref.id] = problem
            log.warning("stored adapter not served", extra={"adapter": ref.id, "reason": problem.message})

    async def _enrol_again(self, stored: StoredAdapter, only: set[str] | None = None) -> None:
        """Serves the versions of `stored` that are not served; with `only`, none but those."""
        enrolled = await asyncio.to_thread(read_stored, self.store, self.intake.base, stored)
        served = {one.ref.id for one in self.roster.of(stored.name) if one.state is AdapterState.LOADED}
        for one in enrolled:
            identity = one.manifest.ref.id
            if identity not in served and (only is None or identity in only):
                self._enrol(one)


def _stored(store: AdapterStore, name: str) -> StoredAdapter | None:
    try:
        return store.of(name)
    except ModelNotFound:
        return None


def _too_early() -> Unavailable:
    return Unavailable("The model is being loaded; try again in a moment.", code="model_loading")
