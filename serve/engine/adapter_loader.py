"""Reads adapters from disk on a thread of its own, so that no step waits for a disk or for the checks of a file."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from ..adapters.background import yield_to_requests
from ..contract.adapters import AdapterRef
from ..contract.errors import ErrorRecord, TunechatError
from .known_adapter import HostAdapter

logger = logging.getLogger(__name__)

_FAILED = ErrorRecord(
    code="adapter_load_failed",
    message="the adapter could not be loaded; the server's log says why",
    http_status=500,
)


@dataclass(frozen=True, slots=True)
class AdapterRead:
    """What came of reading one version: the adapter, or why it cannot be used."""

    digest: str
    host: HostAdapter | None = None
    error: ErrorRecord | None = None


class AdapterLoader:
    """One thread that calls `read` for one version after another and hands each AdapterRead to `done`.

    It takes its time while `is_busy()`.
    The thread starts with the first version, so an engine without adapters has none. It ends with the process.
    """

    def __init__(
        self,
        read: Callable[[AdapterRef, Path], HostAdapter],
        done: Callable[[AdapterRead], None],
        is_busy: Callable[[], bool] | None = None,
    ) -> None:
        self._read = read
        self._is_busy = is_busy
        self._done = done
        self._orders: SimpleQueue[tuple[AdapterRef, Path]] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def load(self, ref: AdapterRef, folder: Path) -> None:
        """Read this version after those that were ordered before; returns at once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="adapter loader", daemon=True)
            self._thread.start()
        self._orders.put((ref, folder))

    def _work(self) -> None:
        yield_to_requests(self._is_busy)
        while True:
            ref, folder = self._orders.get()
            self._done(self._load(ref, folder))

    def _load(self, ref: AdapterRef, folder: Path) -> AdapterRead:
        try:
            return AdapterRead(ref.digest, host=self._read(ref, folder))
        except TunechatError as error:
            logger.warning("adapter %s cannot be used: %s", ref.id, error.message)
            return AdapterRead(ref.digest, error=error.record)
        except Exception:
            # A file that our checks let through must cost its own requests, not everybody's.
            logger.exception("adapter %s could not be loaded", ref.id)
            return AdapterRead(ref.digest, error=_FAILED)
