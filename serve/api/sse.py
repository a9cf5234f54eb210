"""Server-sent events to a client that may be slow, frozen or gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import AppStatus, EventSourceResponse, SendTimeoutError
from starlette.types import Message, Receive, Scope, Send

# By default every stream is cancelled on SIGTERM; here running streams finish (see drain.py).
AppStatus.disable_automatic_graceful_drain()  # type: ignore[no-untyped-call]
# At DEBUG it logs every chunk, which is what users and models say.
logging.getLogger("sse_starlette").setLevel(logging.WARNING)

COMMENT = ServerSentEvent(comment="ping", sep="\n")


class EventStream(EventSourceResponse):
    """Sends ready-made events one by one, and `beat`, a comment line, every `heartbeat` seconds.

    A new event is asked for when the last one was taken, so nothing piles up here. Every send is bounded by
    `send_timeout` (the base class leaves the first and the last unbounded); SendTimeoutError leaves the call when a
    client does not read. `on_close` runs in every case: client gone, cancelled before the first byte, finished.
    """

    def __init__(
        self,
        events: AsyncIterator[bytes],
        *,
        heartbeat: float,
        beat: ServerSentEvent = COMMENT,
        send_timeout: float,
        on_close: Callable[[], Awaitable[None]],
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            events,
            ping=heartbeat,
            ping_message_factory=lambda: beat,
            headers={"Cache-Control": "no-cache", **(headers or {})},
            sep="\n",
        )
        self._limit = send_timeout
        self._on_close = on_close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def bounded_send(message: Message) -> None:
            try:
                async with asyncio.timeout(self._limit):
                    await send(message)
            except TimeoutError:
                raise SendTimeoutError from None

        try:
            await super().__call__(scope, receive, bounded_send)
        finally:
            await asyncio.shield(asyncio.ensure_future(self._on_close()))
