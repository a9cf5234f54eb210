"""The store of responses for the event loop: on one thread of its own, kept tidy, and refused clearly when it fails."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from ...contract.errors import Unavailable, Unsupported
from ..settings import ApiSettings
from .store import ResponseStore, UnknownVersion

log = logging.getLogger(__name__)

T = TypeVar("T")

_TIDY_SECONDS = 600.0


class Keeper:
    """Opens the store with its lifespan. A store that cannot be opened stops nothing but what needs it."""

    def __init__(self, settings: ApiSettings) -> None:
        self._settings = settings
        self._store: ResponseStore | None = None
        self._thread: ThreadPoolExecutor | None = None

    @property
    def is_configured(self) -> bool:
        return self._settings.response_store is not None and self._settings.response_retention > 0

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Open on entry, closed on exit."""
        with ThreadPoolExecutor(1, thread_name_prefix="responses") as self._thread:
            await self._run(self._open)
            tidying = asyncio.create_task(self._keep_tidy())
            try:
                yield
            finally:
                tidying.cancel()
                await asyncio.gather(tidying, return_exceptions=True)
                await self._run(self._close)

    def wants(self, store: bool | None) -> bool:
        """Whether a request whose `store` is this is stored: where it says nothing, if it can be.

        Raises Unsupported when this server stores nothing, and Unavailable when it cannot.
        """
        if store is None:
            return self._store is not None
        if store:
            self._check()
        return store

    async def ask(self, question: Callable[[ResponseStore], T]) -> T:
        """What `question` finds in the store, or does to it. Raises what `wants` raises, at any failure of the disk."""
        store = self._check()
        try:
            return await self._run(question, store)
        except sqlite3.Error as error:
            log.error("the store of responses failed", exc_info=error)
            raise _failed() from error

    def _check(self) -> ResponseStore:
        if not self.is_configured:
            raise Unsupported("This server stores no responses; send 'store': false.", param="store")
        if self._store is None:
            raise _failed()
        return self._store

    async def _run(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def _open(self) -> None:
        settings = self._settings
        if settings.response_store is None or not self.is_configured:
            return
        try:
            store = ResponseStore(
                settings.response_store,
                retention=settings.response_retention,
                most=settings.max_stored_responses,
                most_bytes=settings.max_stored_bytes,
            )
        except UnknownVersion as error:
            log.error("responses cannot be stored: a newer release has written the file", exc_info=error)
        except (sqlite3.Error, OSError) as error:
            log.error("responses cannot be stored: the file cannot be opened", exc_info=error)
        else:
            self._store = store

    def _close(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            store.close()

    async def _keep_tidy(self) -> None:
        """What has expired goes, whether anybody asks for responses or not."""
        while True:
            await asyncio.sleep(_TIDY_SECONDS)
            if self._store is not None:
                with contextlib.suppress(Unavailable):
                    await self.ask(ResponseStore.tidy)


def _failed() -> Unavailable:
    return Unavailable("Responses can be neither stored nor read now; see the server's log.", code="store_failed")
