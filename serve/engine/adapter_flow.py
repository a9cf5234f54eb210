"""Moves adapters between disk, memory and slots, as messages and waiting sequences want them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from ..contract.adapters import AdapterRef
from ..contract.errors import AdapterCapacity, Conflict, ErrorRecord, ModelNotFound, TunechatError
from ..contract.messages import (
    AdapterFailed,
    AdapterLoaded,
    AddAdapter,
    FromEngine,
    LoadAdapter,
    PinAdapter,
    RemoveAdapter,
    SequenceOutput,
    StepOutputs,
)
from .adapter_loader import AdapterLoader, AdapterRead
from .known_adapter import HostAdapter, KnownAdapter
from .residency import Residency
from .scheduler import Scheduler

logger = logging.getLogger(__name__)

AdapterMessage = AddAdapter | LoadAdapter | PinAdapter | RemoveAdapter


class AdapterDevice(Protocol):
    """What the device side does with adapters. `read_adapter` runs beside the steps, the others between two of them.

    `install` gets what `read_adapter` gave: only the device side knows its type.
    """

    @property
    def adapter_slots(self) -> int: ...

    @property
    def adapter_bytes(self) -> int: ...

    def read_adapter(self, ref: AdapterRef, folder: Path) -> HostAdapter: ...

    def install(self, slot: int, adapter: Any) -> None: ...

    def uninstall(self, slot: int) -> None: ...


class AdapterFlow:
    """One version is read at a time, for the oldest that wants one. What was read and finds no room waits for it."""

    def __init__(
        self,
        device: AdapterDevice,
        residency: Residency,
        scheduler: Scheduler,
        *,
        done: Callable[[AdapterRead], None],
        send: Callable[[FromEngine], None],
    ) -> None:
        self._device = device
        self._residency = residency
        self._scheduler = scheduler
        self._loader = AdapterLoader(device.read_adapter, done, lambda: bool(scheduler.running))
        self._send = send
        self._reading: str | None = None
        self._read: HostAdapter | None = None
        self._preemptions = 0

    @property
    def is_reading(self) -> bool:
        """Whether an AdapterRead is on its way."""
        return self._reading is not None

    def handle(self, message: AdapterMessage) -> None:
        """Do what the gateway says."""
        match message:
            case AddAdapter():
                self._residency.add(message.ref, Path(message.folder))
            case LoadAdapter():
                self._load(message.digest)
            case RemoveAdapter():
                self._remove(message.digest)
            case PinAdapter():
                self._pin(message)

    def take(self, read: AdapterRead) -> None:
        """Note what came of a reading."""
        self._reading = None
        known = self._residency.get(read.digest)
        if known is None or not known.is_missing:
            return
        if read.host is None:
            self._fail(known, read.error or _unexplained())
            return
        known.nbytes = read.host.nbytes
        self._refuse_too_large(known)
        if not known.is_missing:
            return
        if self._residency.stuck is not None:
            self._drop_stuck()
        self._residency.stuck, self._read = read.digest, read.host

    def settle(self) -> None:
        """Do all that can be done now: between two steps, after messages."""
        if self._scheduler.preemptions != self._preemptions:
            # One that ran beside pins that came later may not fit beside them when it waits again.
            self._preemptions = self._scheduler.preemptions
            self._refuse_what_never_fits()
        if self._read is not None:
            self._place()
        if self._residency.has_wishes and self._reading is None:
            self._read_next()

    def install(self) -> None:
        """Bring the device's slots up to date; before each step, and whenever something left memory."""
        for slot, host in self._residency.take_changes():
            if host is None:
                self._device.uninstall(slot)
            else:
                self._device.install(slot, host)

    def _load(self, digest: str) -> None:
        known = self._residency.get(digest)
        if known is None or known.is_removed:
            self._refuse(digest, ModelNotFound("the adapter is not known to the engine, or was unloaded").record)
        elif known.host is not None:
            self._residency.touch(digest)
            self._send(AdapterLoaded(digest=digest, bytes=known.nbytes))
        else:
            self._residency.ask(digest, self._scheduler.arrivals)

    def _remove(self, digest: str) -> None:
        known = self._residency.get(digest)
        if known is not None and known.asked is not None:
            self._refuse(digest, Conflict("the adapter was unloaded while it was being loaded").record)
        self._residency.remove(digest)

    def _pin(self, message: PinAdapter) -> None:
        if not message.pinned:
            self._residency.unpin(message.digest)
            return
        try:
            self._residency.pin(message.digest)
        except AdapterCapacity as error:
            logger.warning("adapter %s is not pinned: %s", message.digest, error.message)
        self._refuse_what_never_fits()

    def _refuse_too_large(self, known: KnownAdapter) -> None:
        """Its size is known now: refuse whoever can never have it in memory."""
        self._refuse_what_never_fits()
        if known.asked is not None:
            try:
                self._residency.check_capacity((known.ref.digest,))
            except AdapterCapacity as error:
                self._refuse(known.ref.digest, error.record)
                self._residency.unask(known.ref.digest)

    def _refuse_what_never_fits(self) -> None:
        for sequence in [sequence for sequence in self._scheduler.waiting if sequence.adapters]:
            try:
                self._residency.check_capacity(sequence.adapters)
            except AdapterCapacity as error:
                self._report(self._scheduler.fail(sequence, error.record))

    def _place(self) -> None:
        """Give what was read a place in memory, if there is one and it is still wanted."""
        known = None if self._residency.stuck is None else self._residency.get(self._residency.stuck)
        if known is None or self._read is None or not known.is_missing:
            self._drop_stuck()
            return
        digest = known.ref.digest
        if self._residency.put(digest, self._read):
            self._drop_stuck()
            if known.asked is not None:
                self._residency.unask(digest)
                self._send(AdapterLoaded(digest=digest, bytes=known.nbytes))
            return
        # Only sequences wait for room. Who asked for a load is told that there is none, also of those next in turn.
        for asked in self._residency.asked():
            self._refuse(asked.ref.digest, _no_room())
            self._residency.unask(asked.ref.digest)
        if not known.is_missing:
            self._drop_stuck()

    def _read_next(self) -> None:
        known = self._residency.next_missing()
        if known is None:
            return
        self._reading = known.ref.digest
        self._loader.load(known.ref, known.folder)

    def _drop_stuck(self) -> None:
        self._residency.stuck = self._read = None

    def _fail(self, known: KnownAdapter, error: ErrorRecord) -> None:
        """A reading failed: so do those that wait for it, and nobody else. The next who wants it tries again."""
        digest = known.ref.digest
        if known.asked is not None:
            self._refuse(digest, error)
            self._residency.unask(digest)
        told = msgspec.structs.replace(error, message=f"{known.ref.id} could not be loaded: {error.message}")
        for sequence in [sequence for sequence in self._scheduler.waiting if digest in sequence.adapters]:
            self._report(self._scheduler.fail(sequence, told))

    def _refuse(self, digest: str, error: ErrorRecord) -> None:
        self._send(AdapterFailed(digest=digest, error=error))

    def _report(self, output: SequenceOutput) -> None:
        self._send(StepOutputs(outputs=[output]))


def _no_room() -> ErrorRecord:
    return AdapterCapacity(
        "the memory for adapters is full of those that are in use or pinned; try again when fewer are", retry_after=5
    ).record


def _unexplained() -> ErrorRecord:
    return TunechatError("the adapter could not be loaded").record
