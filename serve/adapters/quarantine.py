"""Adapters that were refused, with their reasons: in memory and in files, so that a restart forgets nothing."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from pathlib import Path

import msgspec

from ..contract.errors import ErrorRecord
from .durable import replace_synced

_log = logging.getLogger(__name__)


class Quarantined(msgspec.Struct, frozen=True, kw_only=True):
    """Why the folder `name` was refused, and since when, in seconds since 1970."""

    name: str
    error: ErrorRecord
    since: int


class Quarantine:
    """The refused adapters of the store in `root`.

    Files carry a hash for a name, since a bad name may be the reason.
    """

    def __init__(self, root: Path) -> None:
        self._folder = root / ".quarantine"
        self._held: dict[str, Quarantined] = {}
        for path in self._folder.glob("*.json"):
            with contextlib.suppress(OSError, msgspec.MsgspecError):
                held = msgspec.json.decode(path.read_bytes(), type=Quarantined)
                self._held[held.name] = held

    def all(self) -> tuple[Quarantined, ...]:
        """What is refused now, by name."""
        return tuple(self._held[name] for name in sorted(self._held))

    def put(self, held: Quarantined) -> None:
        """Keeps the reason, in place of an older one; only in memory while the disk fails."""
        self._held[held.name] = held
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            replace_synced(self._file(held.name), msgspec.json.encode(held))
        except OSError as error:
            _log.warning("the reason why adapter %s was refused cannot be written: %s", held.name, error.strerror)

    def lift(self, name: str) -> None:
        """Forgets the reason: the adapter is good now, or gone."""
        self._held.pop(name, None)
        self._file(name).unlink(missing_ok=True)

    def _file(self, name: str) -> Path:
        return self._folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.json"
