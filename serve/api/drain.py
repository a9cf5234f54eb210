"""Leaving well: new requests are refused, queued ones told, running ones finish within a grace."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from ..contract.errors import Unavailable
from .errors import error_response

_RETRY_AFTER = 5
# What a load balancer and an operator still want to know of a server that leaves.
_STILL_ANSWERED = frozenset({"/livez", "/readyz", "/metrics", "/version"})


class Running(Protocol):
    """A generation, as far as leaving is concerned."""

    started: bool

    def fail(self, error: Exception) -> None: ...


class Drain:
    """Whether the server is leaving, and who still runs. `begin`, then `wait_idle`, then `force` for those left.

    `tell_busy` is told whether anything is being generated, whenever that may have changed.
    """

    def __init__(self) -> None:
        self.is_draining = False
        self.began = asyncio.Event()
        self.tell_busy: Callable[[bool], None] | None = None
        self._running: set[Running] = set()
        self._requests = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def active_requests(self) -> int:
        return self._requests

    @property
    def is_generating(self) -> bool:
        """Whether any answer is being generated. May be asked by any thread."""
        return bool(self._running)

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        """Counts a request until it ends."""
        self._requests += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._requests -= 1
            if not self._requests:
                self._idle.set()

    def track(self, generation: Running) -> None:
        """Remembers a generation until `forget`. One that comes after the end has begun is told at once."""
        self._running.add(generation)
        self._tell()
        if self.is_draining:
            generation.fail(leaving())

    def forget(self, generation: Running) -> None:
        self._running.discard(generation)
        self._tell()

    def begin(self) -> None:
        """Refuses what is new and what has not begun to generate."""
        self.is_draining = True
        self.began.set()
        for generation in self._running:
            if not generation.started:
                generation.fail(leaving())

    def force(self) -> None:
        """Ends every generation with an error its client can see."""
        self.begin()
        for generation in self._running:
            generation.fail(Unavailable("The server stopped before this answer was complete.", code="stopping"))

    def _tell(self) -> None:
        if self.tell_busy is not None:
            self.tell_busy(self.is_generating)

    async def wait_idle(self, limit: float) -> bool:
        """Whether every request ended within `limit` seconds."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), limit)
        return self._idle.is_set()


class DrainMiddleware:
    """Counts requests, and refuses new ones while the server leaves."""

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self._app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _STILL_ANSWERED:
            await self._app(scope, receive, send)
            return
        if self._drain.is_draining:
            await error_response(leaving().record, {"connection": "close"})(scope, receive, send)
            return
        with self._drain.request():
            await self._app(scope, receive, send)


def leaving() -> Unavailable:
    """What clients of a server that leaves are told."""
    return Unavailable("The server is shutting down.", code="shutting_down", retry_after=_RETRY_AFTER)
