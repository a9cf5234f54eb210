"""Watches a folder of PEFT folders: what is dropped in or changed becomes a version, what is bad is quarantined.

It stores and reports; whoever reads the events decides what is served.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

from watchfiles import awatch

from ..contract.adapters import AdapterManifest
from ..contract.errors import Conflict, NameTaken, TunechatError, UnsupportedFormat
from .adapter import CONFIG, WEIGHTS
from .names import check_name
from .origin import MANIFEST
from .quarantine import Quarantine, Quarantined
from .staging import Intake
from .store import AdapterStore

# What a folder looks like from outside: for each of its files the inode, the size and the time of the last change.
State = tuple[tuple[str, int, int, int], ...]

_FILES = (CONFIG, WEIGHTS, MANIFEST)
_RESCAN = 10.0  # seconds; notifications get lost on some network file systems


@dataclass(frozen=True, slots=True)
class Imported:
    """The folder `name` is stored as `version`, which may be one that was there already."""

    name: str
    version: AdapterManifest


@dataclass(frozen=True, slots=True)
class Refused:
    """The folder `name` is quarantined. An older version of that name goes on being stored."""

    name: str
    held: Quarantined


@dataclass(frozen=True, slots=True)
class Removed:
    """The folder `name` is gone from the watched folder. What was stored of it is still stored."""

    name: str


_log = logging.getLogger(__name__)

Event = Imported | Refused | Removed


class FolderWatch:
    """Watches `root`, whose folders are named like the adapters they hold; names that begin with a dot are passed over.

    `settle` is for how many seconds a folder must lie still before it is read.
    """

    def __init__(
        self, root: Path, store: AdapterStore, quarantine: Quarantine, intake: Intake, *, settle: float = 1.0
    ) -> None:
        self.root = root
        self._store = store
        self._quarantine = quarantine
        self._intake = intake
        self._settle = settle
        self._done: dict[str, State] = {}
        self._moving: dict[str, tuple[State, float]] = {}

    async def events(self, stop: asyncio.Event) -> AsyncIterator[Event]:
        """What happens in the folder, what lies in it at first included, until `stop` is set.

        Folders that were quarantined before and are gone now are reported as removed.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        self._done |= {held.name: () for held in self._quarantine.all()}
        scanned = -_RESCAN
        async for changed in self._ticks(stop):
            now = time.monotonic()
            if not changed and not self._moving and now - scanned < _RESCAN:
                continue
            scanned = now
            for name in await asyncio.to_thread(self._settled, now):
                if stop.is_set():
                    return
                event = await asyncio.to_thread(self._take, name)
                if event is not None:
                    yield event

    async def _ticks(self, stop: asyncio.Event) -> AsyncIterator[bool]:
        """Twice in the time to settle, or when something changed: whether anything may have changed."""
        pause = max(int(self._settle * 500), 10)  # milliseconds
        try:
            async for changed in awatch(
                self.root,
                watch_filter=None,
                debounce=pause,
                step=min(pause, 50),
                stop_event=stop,
                rust_timeout=pause,
                yield_on_timeout=True,
            ):
                yield bool(changed)
        except* (RuntimeError, OSError) as group:
            # A file whose name is no UTF-8 is enough, and so is a limit on watches.
            reason = group.exceptions[0]
            _log.warning("%s is looked through again and again, since notifications failed: %s", self.root, reason)
        while not stop.is_set():
            yield True
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), max(self._settle, 0.1))

    def _settled(self, now: float) -> list[str]:
        """Names whose folder changed and has lain still since, or is gone."""
        states = self._states()
        for name in states.keys() | self._done.keys() | self._moving.keys():
            state = states.get(name, ())
            is_known = state == self._done.get(name) if name in states else name not in self._done
            if is_known:
                self._moving.pop(name, None)
            elif name not in self._moving or self._moving[name][0] != state:
                self._moving[name] = (state, now)
        return sorted(name for name, (_, since) in self._moving.items() if now - since >= self._settle)

    def _take(self, name: str) -> Event | None:
        """Reads one folder that has settled. None when it is in motion again."""
        state, _ = self._moving.pop(name)
        if not state:
            self._done.pop(name, None)
            self._quarantine.lift(_shown(name))
            return Removed(_shown(name))
        folder = self.root / name
        try:
            check_name(name)
            if folder.is_symlink():
                raise UnsupportedFormat(f"{name} is a link; put the folder itself here")
            intake = replace(self._intake, is_settled=lambda: _state_of(folder) == state)
            version = self._store.publish(name, folder, intake)
        except TunechatError as error:
            if isinstance(error, Conflict) and not isinstance(error, NameTaken):
                self._moving[name] = (state, time.monotonic())
                return None
            held = Quarantined(name=_shown(name), error=error.record, since=int(time.time()))
            self._quarantine.put(held)
            self._done[name] = state
            return Refused(held.name, held)
        self._quarantine.lift(name)
        self._done[name] = state
        return Imported(name, version)

    def _states(self) -> dict[str, State]:
        """Every folder that holds anything."""
        try:
            entries = list(os.scandir(self.root))
        except FileNotFoundError:
            return {}
        folders = (entry for entry in entries if not entry.name.startswith(".") and entry.is_dir())
        states = {entry.name: _state_of(Path(entry.path)) for entry in folders}
        return {name: state for name, state in states.items() if state}


def _state_of(folder: Path) -> State:
    """The state of the files that are read; of a folder without any of them, of all files in it."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except OSError as error:
        return (("", error.errno or 0, 0, 0),)
    read = [entry for entry in entries if entry.name in _FILES]
    found = []
    for entry in read or entries:
        try:
            status = entry.stat()
        except FileNotFoundError:
            continue
        found.append((entry.name, status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)


def _shown(name: str) -> str:
    """A folder's name as text; names that are no UTF-8 get escapes."""
    return name.encode("utf-8", "backslashreplace").decode()
