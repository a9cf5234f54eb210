"""Heads and bodies that are too long, too slow, too deep or too clever: refused early, and nothing grows."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tunechat.tests.blackbox.server import LEAKS, MODEL, Server

pytestmark = pytest.mark.usefixtures("nothing_grows")

MAX_BODY = 4 << 20
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def nothing_grows(server: Server, golden: str) -> Iterator[None]:
    before = server.gateway.memory_info().rss
    yield
    server.check_health(golden)
    assert server.gateway.memory_info().rss - before < 20 << 20


def pour(server: Server, head: bytes, piece: bytes, most: int) -> tuple[bytes, int]:
    """What the server answers to an endless body, and how many bytes of it were taken before."""
    with socket.create_connection(server.address, timeout=20) as connection:
        connection.sendall(head)
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < most:
                connection.sendall(piece)
                sent += len(piece)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(1 << 16):
                answer += part
        return answer, sent


def test_a_body_that_says_it_is_too_long_is_not_read(server: Server) -> None:
    answer, _ = pour(server, HEAD + b"Content-Length: 1073741824\r\n\r\n", b"", 0)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "payload_too_large"


def test_a_body_without_a_length_is_cut_at_the_cap(server: Server) -> None:
    piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    _, taken = pour(server, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", piece, 256 << 20)
    # What lies in the buffers of both ends comes on top of the cap.
    assert MAX_BODY < taken < MAX_BODY + (16 << 20)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize"])
@pytest.mark.parametrize(
    "content",
    [
        b"[" * 10_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b'{"model": 1, "model": 2}',
        b'{"prompt": "\xff\xfe"}',
        b'{"prompt": "\\ud800"}',
        b"\x00" * 100,
        b"",
        b"null",
        b"[]",
        b"1e999999",
        b'{"tokens": [' + b"-1," * 500_000 + b"-1]}",
    ],
    ids=lambda content: repr(content[:24]),
)
def test_bodies_that_are_no_requests(server: Server, path: str, content: bytes) -> None:
    response = server.http.post(path, content=content, headers=JSON)
    assert response.status_code == 400, response.text
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    assert len(response.content) < 2000
    assert not LEAKS.search(response.content)


def test_compressed_bodies_and_other_types_are_not_taken(server: Server) -> None:
    bomb = gzip.compress(b" " * (64 << 20))
    assert server.http.post("/tokenize", content=bomb, headers={**JSON, "Content-Encoding": "gzip"}).status_code == 415
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        assert server.http.post("/tokenize", content=b"{}", headers={"Content-Type": kind}).status_code == 415


@pytest.mark.parametrize("field", ["chat_template", "chat_template_kwargs", "documents"])
def test_templates_of_requests_are_refused(server: Server, field: str) -> None:
    value: Any = {"chat_template_kwargs": {"chat_template": "{{ messages }}", "tokenize": True}}.get(field, "{{ 1 }}")
    body = {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 1, field: value}
    response = server.http.post("/v1/chat/completions", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"].startswith(field)


@pytest.mark.parametrize("origin", ["https://evil.example", "null"])
def test_pages_of_other_sites_get_nothing(server: Server, origin: str) -> None:
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    for response in (
        server.http.options("/v1/chat/completions", headers=headers),
        server.http.post("/v1/completions", json={"model": MODEL, "prompt": "x"}, headers=headers),
        server.http.get("/v1/models", headers={"Host": "evil.example"}),
    ):
        assert response.status_code in {400, 403}
        assert not [name for name in response.headers if name.startswith("access-control")]


def test_many_connections_that_say_little(server: Server, golden: str) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            connection = stack.enter_context(socket.create_connection(server.address, timeout=5))
            connection.sendall(b"GET /livez HTTP/1.1\r\nX-Slow: ")
        assert server.control() == golden


def test_a_head_request_is_answered_without_a_body(server: Server) -> None:
    request = "{} /version HTTP/1.1\r\nHost: localhost\r\nConnection: {}\r\n\r\n"
    with socket.create_connection(server.address, timeout=10) as connection:
        connection.sendall((request.format("HEAD", "keep-alive") + request.format("GET", "close")).encode())
        answers = b"".join(iter(lambda: connection.recv(65536), b"")).split(b"HTTP/1.1 200 OK\r\n")
    nothing, head, whole = answers
    assert nothing == b"" and head.endswith(b"\r\n\r\n")
    body = whole.partition(b"\r\n\r\n")[2]
    assert b"content-length: %d\r\n" % len(body) in head and b"version" in body
