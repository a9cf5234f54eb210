"""HTTP/1.1 with bounds on request heads and on unread replies, which uvicorn's httptools protocol leaves open."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ..contract.errors import InvalidRequest, TunechatError
from .context import ABORT
from .encoding import encode_json
from .errors import HeadersTooLarge, error_body
from .settings import ApiSettings

_HEAD_END = b"\r\n\r\n"


class _HeadTooLarge(Exception):
    """Stops the parser."""


def bounded_protocol(settings: ApiSettings) -> type[asyncio.Protocol]:
    """A protocol class for uvicorn with the limits of `settings`."""

    class Bounded(BoundedProtocol):
        limits = settings

    return Bounded


class BoundedProtocol(HttpToolsProtocol):
    """Refuses heads that are too long (431), drops connections whose head drips in, and connections beyond the limit.

    Requests get a way to drop their connection: a client that reads nothing would hold an ordinary close for ever. A
    connection with unsent bytes of which the client takes none for twice `send_timeout` is dropped: streams see to that
    themselves, and earlier; this is for whole replies.
    """

    limits: ApiSettings

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = True
        self._head_bytes = 0
        self._tail = b""
        self._refused = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._unsent = 0
        self._unsent_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limits.max_connections:
            transport.abort()
            return
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._stop_unsent_timer()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_unsent()

    def resume_writing(self) -> None:
        self._stop_unsent_timer()
        super().resume_writing()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_unsent()

    def data_received(self, data: bytes) -> None:
        if self._in_head and not self._head_fits(data):
            self.send_400_response("")
            return
        super().data_received(data)

    def on_message_begin(self) -> None:
        self._in_head = True
        if self._head_timer is None:
            self._expect_head()
        # Who sends another request is there.
        self._stop_unsent_timer()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) >= self.limits.max_headers:
            self._refused = True
            raise _HeadTooLarge
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        self._tail = b""
        self._stop_timer()
        super().on_headers_complete()
        self.scope["extensions"] = {ABORT: {"drop": self.transport.abort}}

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_head = True

    def send_400_response(self, msg: str) -> None:
        """Answers what is no request of ours, in the API's error shape, and closes."""
        if self.transport.is_closing():
            return
        error: TunechatError
        status, error = "400 Bad Request", InvalidRequest("This is not valid HTTP.", code="invalid_http")
        if self._refused:
            status, error = "431 Request Header Fields Too Large", HeadersTooLarge("The request's head is too large.")
        body = error_body(error.record)
        content = encode_json(body)
        head = (
            f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(content)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + content)
        self.transport.close()

    def _head_fits(self, data: bytes) -> bool:
        seen = self._tail + data
        end = seen.find(_HEAD_END)
        self._head_bytes += len(data) if end < 0 else max(0, end + len(_HEAD_END) - len(self._tail))
        self._tail = seen[-(len(_HEAD_END) - 1) :]
        self._refused = self._head_bytes > self.limits.max_header_bytes
        return not self._refused

    def _expect_head(self) -> None:
        self._stop_timer()
        self._head_timer = self.loop.call_later(self.limits.header_timeout, self._head_is_late)

    def _head_is_late(self) -> None:
        if self._in_head and not self.transport.is_closing():
            self.transport.abort()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _watch_unsent(self) -> None:
        self._stop_unsent_timer()
        self._unsent = self.transport.get_write_buffer_size()
        if self._unsent:
            self._unsent_timer = self.loop.call_later(2 * self.limits.send_timeout, self._check_unsent)

    def _check_unsent(self) -> None:
        if self.transport.get_write_buffer_size() < self._unsent:
            self._watch_unsent()
        else:
            self.transport.abort()

    def _stop_unsent_timer(self) -> None:
        if self._unsent_timer is not None:
            self._unsent_timer.cancel()
            self._unsent_timer = None
