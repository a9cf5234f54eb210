"""Bodies end at the cap, whatever they claim and however they come."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tunechat.tests.serve.api.conftest import Serve
from tunechat.tests.serve.api.harness import call, chat, make_scope

JSON = {"content-type": "application/json"}
CAP = 2048


async def post(app: Any, body: bytes | list[bytes], **headers: str) -> Any:
    return await call(app, make_scope("POST", "/v1/chat/completions", JSON | headers), body)


async def test_a_body_at_the_cap_is_read_and_one_beyond_is_not(serve: Serve) -> None:
    served = await serve(max_body_bytes=CAP)
    body = json.dumps(chat()).encode()
    assert (await post(served.app, body.ljust(CAP))).status == 200
    answer = await post(served.app, body.ljust(CAP + 1))
    assert answer.status == 413
    assert answer.headers["connection"] == "close"
    assert answer.json["error"]["code"] == "payload_too_large"


async def test_nothing_is_read_beyond_the_cap(serve: Serve) -> None:
    served = await serve(max_body_bytes=CAP)
    chunks = [b"x" * 1024 for _ in range(1000)]
    left = list(chunks)

    async def receive() -> Any:
        return {"type": "http.request", "body": left.pop(), "more_body": True}

    statuses: list[int] = []

    async def send(message: Any) -> None:
        statuses.append(message.get("status"))

    await served.app(make_scope("POST", "/v1/completions", JSON), receive, send)
    assert statuses[0] == 413
    assert len(chunks) - len(left) == CAP // 1024 + 1


@pytest.mark.parametrize("length", [str(CAP + 1), "9" * 400, "-1", "abc", "1e3", ""])
async def test_a_length_beyond_the_cap_is_refused_unread(serve: Serve, length: str) -> None:
    served = await serve(max_body_bytes=CAP)

    async def receive() -> Any:
        raise AssertionError("the body was read")

    statuses: list[int] = []

    async def send(message: Any) -> None:
        statuses.append(message.get("status"))

    await served.app(make_scope("POST", "/v1/completions", JSON | {"content-length": length}), receive, send)
    assert statuses[0] == 413


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "gzip, identity"])
async def test_compressed_bodies_are_refused(serve: Serve, encoding: str) -> None:
    served = await serve()
    answer = await post(served.app, b"\x1f\x8b", **{"content-encoding": encoding})
    assert answer.status == 415


async def test_a_body_that_trickles_times_out(serve: Serve) -> None:
    served = await serve(body_timeout=0.05)

    async def receive() -> Any:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b" ", "more_body": True}

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await served.app(make_scope("POST", "/v1/completions", JSON), receive, send)
    assert sent[0]["status"] == 408


@pytest.mark.parametrize("depth", [300, 10_000, 100_000])
@pytest.mark.parametrize("pair", ["[]", '{"a":}'])
async def test_deep_nesting_is_refused(serve: Serve, depth: int, pair: str) -> None:
    served = await serve()
    half = len(pair) // 2 if pair == "[]" else len(pair) - 1
    nested = pair[:half] * depth + "1" + pair[half:] * depth
    answer = await post(served.app, f'{{"model":"tiny","x":{nested}}}'.encode())
    assert answer.status == 400
    assert answer.json["error"]["code"] == "invalid_json"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_only_json_is_read(serve: Serve, kind: str) -> None:
    served = await serve()
    answer = await post(served.app, json.dumps(chat()).encode(), **{"content-type": kind})
    assert answer.status == 415
    assert not served.engine.submitted


async def test_a_client_that_leaves_while_it_sends_is_no_error(serve: Serve) -> None:
    served = await serve()
    leave = asyncio.Event()
    leave.set()
    answer = await call(served.app, make_scope("POST", "/v1/completions", JSON), [], leave=leave)
    assert answer.status == 0
