"""How much of a request is read. The cap holds while bytes arrive, whatever a Content-Length says or leaves out."""

from __future__ import annotations

import asyncio
import re

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..contract.errors import PayloadTooLarge
from .errors import RequestTimeout, UnsupportedMediaType, error_response
from .settings import ApiSettings

# An adapter is larger than any question.
_UPLOAD = re.compile(r"/v1/adapters/[^/]+")
_FORM_BYTES = 64 << 10  # what a form has besides its file


class LimitsMiddleware:
    """Answers 413 as soon as a body crosses the cap, 408 when it trickles, 415 when it is compressed.

    The errors leave `receive`, so that whoever reads the body sees them; nothing beyond the cap is read.
    """

    def __init__(self, app: ASGIApp, settings: ApiSettings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most, seconds = self._limits(scope)
        for name, value in scope["headers"]:
            if name == b"content-encoding" and value.strip().lower() not in {b"", b"identity"}:
                unsupported = UnsupportedMediaType("Compressed request bodies are not accepted.")
                await error_response(unsupported.record)(scope, receive, send)
                return
            if name == b"content-length" and (not value.isdigit() or int(value[:20]) > most):
                await error_response(_too_large(most).record)(scope, receive, send)
                return
        await self._app(scope, _bounded(receive, most, seconds), send)

    def _limits(self, scope: Scope) -> tuple[int, float]:
        """Most bytes and most seconds of the body."""
        settings = self._settings
        if scope["method"] == "POST" and scope["path"] == "/v1/files":
            return settings.max_file_bytes + _FORM_BYTES, settings.upload_timeout
        if scope["method"] == "POST" and _UPLOAD.fullmatch(scope["path"]):
            return settings.max_upload_bytes, settings.upload_timeout
        return settings.max_body_bytes, settings.body_timeout


def _bounded(receive: Receive, most: int, seconds: float) -> Receive:
    read = 0
    complete = False
    deadline: float | None = None

    async def bounded_receive() -> Message:
        nonlocal read, complete, deadline
        if complete:
            return await receive()
        loop = asyncio.get_running_loop()
        deadline = deadline or loop.time() + seconds
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError:
            raise RequestTimeout("The request body did not arrive in time.") from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        read += len(message.get("body", b""))
        if read > most:
            raise _too_large(most)
        complete = not message.get("more_body", False)
        return message

    return bounded_receive


def _too_large(most: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The request body is larger than {most} bytes.")
