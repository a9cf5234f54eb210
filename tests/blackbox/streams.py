"""Streams over bare sockets, for clients that can die, freeze, or look at what is sent last; and streams as bytes."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

from tunechat.tests.blackbox.server import MODEL, Server

# Every token's text is a space and a word, and never the end: such a stream lasts as long as it was asked to.
ENDLESS: dict[str, Any] = {
    "model": MODEL,
    "prompt": "Once upon a time",
    "temperature": 0,
    "stream": True,
    "logit_bias": {"0": -100, "2": -100},
}


class Stream:
    """A request on a socket of its own. `small` keeps the buffers small, so that a sender soon has to wait."""

    def __init__(self, server: Server, body: dict[str, Any], *, path: str = "/v1/completions", small: bool = False):
        self.socket = socket.socket()
        if small:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(60)
        self.socket.connect(server.address)
        content = json.dumps(body).encode()
        key = f"Authorization: Bearer {server.key}\r\n" if server.key else ""
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{key}Content-Type: application/json\r\n"
        self.socket.sendall(head.encode() + f"Content-Length: {len(content)}\r\n\r\n".encode() + content)
        self.seen = b""

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def read_until(self, mark: bytes) -> None:
        """Reads on until `mark` was seen. Fails when the connection ends before."""
        while mark not in self.seen:
            self.read_some()

    def read_some(self) -> None:
        """Reads what is there, or waits for more. Fails when the connection ends."""
        data = self.socket.recv(1 << 16)
        assert data, f"closed too early: {self.seen[-500:]!r}"
        self.seen += data

    def read_to_end(self) -> bytes:
        """All that the server sent, once it has closed the connection or ended the chunked body."""
        while not self.seen.endswith(b"\r\n0\r\n\r\n"):
            data = self.socket.recv(1 << 16)
            if not data:
                break
            self.seen += data
        return self.seen

    @property
    def status(self) -> int:
        return int(self.seen.split(b" ", 2)[1])

    @property
    def header_text(self) -> str:
        return self.seen.partition(b"\r\n\r\n")[0].decode().lower()

    @property
    def body(self) -> bytes:
        """The body, out of its chunks."""
        rest = self.seen.partition(b"\r\n\r\n")[2]
        if "transfer-encoding: chunked" not in self.header_text:
            return rest
        whole = b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            whole += rest[: int(size, 16)]
            rest = rest[int(size, 16) + 2 :]
        return whole

    @property
    def events(self) -> list[bytes]:
        """The events' data, comments left out."""
        events = [event for event in self.body.split(b"\n\n") if event.startswith(b"data: ")]
        return [event.removeprefix(b"data: ") for event in events]

    @property
    def whole_events(self) -> list[dict[str, Any]]:
        """The events of a stream that is not read to its end, as far as they are whole."""
        whole = self.seen.rpartition(b"\n\n\r\n")[0]
        return [json.loads(line.removeprefix(b"data: ")) for line in whole.split(b"\n") if line.startswith(b"data: {")]

    @property
    def errors(self) -> list[dict[str, Any]]:
        """The errors among the events."""
        parsed = [json.loads(event) for event in self.events if event != b"[DONE]"]
        return [event["error"] for event in parsed if "error" in event]


def stream_of(server: Server, path: str, body: dict[str, Any]) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection(*server.address, timeout=60)
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def events_of(raw: bytes) -> list[bytes]:
    """The events' data. Every event is one `data:` line and a blank one; comments are left out."""
    events = []
    assert raw.endswith(b"\n\n")
    for event in raw.removesuffix(b"\n\n").split(b"\n\n"):
        assert b"\n" not in event and b"\r" not in event
        if not event.startswith(b":"):
            assert event.startswith(b"data: ")
            events.append(event.removeprefix(b"data: "))
    return events


def chunks_of(server: Server, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    response, raw = stream_of(server, path, body)
    assert response.status == 200
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-request-id"].startswith("req_")
    *chunks, end = events_of(raw)
    assert end == b"[DONE]"
    return [json.loads(chunk) for chunk in chunks]
