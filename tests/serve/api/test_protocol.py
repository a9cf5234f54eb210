"""Request heads on real sockets: bounded in size, number and time."""

from __future__ import annotations

import contextlib
import json
import socket
import time

import psutil

from tunechat.tests.serve.api.harness import chat
from tunechat.tests.serve.api.server_process import Start

URL = "/v1/chat/completions"


def test_heads_are_bounded_in_size_number_and_time(start: Start) -> None:
    server = start(settings={"header_timeout": 0.5})
    memory = psutil.Process(server.popen.pid).memory_info

    def answer(data: bytes) -> bytes:
        with socket.create_connection(server.address, timeout=5) as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(data)
            received = b""
            with contextlib.suppress(ConnectionError):
                while part := connection.recv(65536):
                    received += part
            return received

    start_line = b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
    assert b"200 OK" in answer(start_line + b"\r\n")
    before = memory().rss
    for head in (
        start_line + b"a: " + b"x" * (1 << 20) + b"\r\n\r\n",
        start_line + b"".join(b"h%d: x\r\n" % index for index in range(10_000)) + b"\r\n",
        start_line + b"".join(b"h%d: x\r\n" % index for index in range(100)) + b"\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
    ):
        reply = answer(head)
        assert not reply or b" 431 " in reply.splitlines()[0]
        assert b"200 OK" not in reply
    assert b" 400 " in answer(b"nonsense\r\n\r\n")
    assert memory().rss - before < 8 << 20
    with socket.create_connection(server.address, timeout=5) as slow, socket.create_connection(server.address) as mute:
        slow.sendall(b"GET /livez HTTP/1.1\r\nhost: loc")
        for connection in (slow, mute):
            connection.settimeout(5)
            with contextlib.suppress(ConnectionError):
                assert connection.recv(100) == b""
    assert server.client.get("/livez").status_code == 200


def test_a_body_in_the_same_packets_as_the_head_is_no_head(start: Start) -> None:
    server = start()
    body = json.dumps(chat("x" * 100, user="y" * 4000)).encode().ljust(100_000)
    head = (
        b"POST %s HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\n" % URL.encode()
    )
    head += b"content-length: %d\r\n\r\n" % len(body)
    for cut in (len(head) - 3, len(head) - 1, len(head), len(head) + 1):
        with socket.create_connection(server.address, timeout=5) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall((head + body)[:cut])
            time.sleep(0.02)
            connection.sendall((head + body)[cut:])
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
