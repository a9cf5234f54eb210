"""How much of a request is read. The cap holds while bytes arrive, whatever a Content-Length says or leaves out."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..contract.errors import PayloadTooLarge
from .errors import RequestTimeout, UnsupportedMediaType, error_response


class LimitsMiddleware:
    """Answers 413 as soon as a body crosses the cap, 408 when it trickles, 415 when it is compressed.

    The errors leave `receive`, so that whoever reads the body sees them; nothing beyond the cap is read.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int, body_timeout: float) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._body_timeout = body_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        for name, value in scope["headers"]:
            if name == b"content-encoding" and value.strip().lower() not in {b"", b"identity"}:
                unsupported = UnsupportedMediaType("Compressed request bodies are not accepted.")
                await error_response(unsupported.record)(scope, receive, send)
                return
            if name == b"content-length" and (not value.isdigit() or int(value[:20]) > self._max_body_bytes):
                await error_response(self._too_large().record)(scope, receive, send)
                return
        await self._app(scope, self._bounded(receive), send)

    def _bounded(self, receive: Receive) -> Receive:
        read = 0
        complete = False
        deadline: float | None = None

        async def bounded_receive() -> Message:
            nonlocal read, complete, deadline
            if complete:
                return await receive()
            loop = asyncio.get_running_loop()
            deadline = deadline or loop.time() + self._body_timeout
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise RequestTimeout("The request body did not arrive in time.") from None
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            read += len(message.get("body", b""))
            if read > self._max_body_bytes:
                raise self._too_large()
            complete = not message.get("more_body", False)
            return message

        return bounded_receive

    def _too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(f"The request body is larger than {self._max_body_bytes} bytes.")
