"""Streams that go wrong: at every step, by every side, and never silently."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tunechat.serve.contract.errors import EngineFailed, ErrorRecord
from tunechat.tests.serve.api.conftest import Serve, Served
from tunechat.tests.serve.api.harness import LEAKS, Answer, call, chat, completion, events_of, make_scope

ANSWER = "abcdefghijklmnopqrst"
FAULTS = [
    EngineFailed("the engine died"),
    RuntimeError("/home/x.py"),
    ErrorRecord(code="oom", message="m", http_status=503),
]


async def stream(served: Served, path: str = "/v1/chat/completions", **options: Any) -> Answer:
    body = chat(stream=True) if "chat" in path else completion(stream=True, max_tokens=100)
    scope = make_scope("POST", path, {"content-type": "application/json"})
    return await call(served.app, scope, json.dumps(body).encode(), **options)


def shown_text(chunks: list[Any]) -> str:
    choices = [chunk["choices"][0] for chunk in chunks]
    return "".join(choice["text"] if "text" in choice else choice["delta"].get("content", "") for choice in choices)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("step", range(1, 21))
async def test_an_error_after_the_start_is_one_event_and_no_end_mark(serve: Serve, step: int, path: str) -> None:
    served = await serve({"answer": ANSWER + "uvw", "faults": {step: FAULTS[step % 3]}})
    answer = await stream(served, path)
    assert answer.status == 200
    assert answer.complete
    *chunks, last = events_of(answer.body)
    assert set(last) == {"error"}
    assert set(last["error"]) == {"message", "type", "param", "code"}
    assert not LEAKS.search(answer.body)
    assert all("error" not in chunk for chunk in chunks)
    assert shown_text(chunks) == (ANSWER + "uvw")[:step]
    assert not served.engine.open


async def test_a_client_that_leaves_aborts_at_any_point(serve: Serve) -> None:
    for step in range(5):
        gate, leave = asyncio.Event(), asyncio.Event()
        served = await serve({"answer": ANSWER, "gates": {step: gate}})
        running = asyncio.create_task(stream(served, leave=leave))
        await served.engine.until_open(1)
        for _ in range(20):
            await asyncio.sleep(0)
        leave.set()
        answer = await running
        assert not answer.complete
        assert served.engine.aborted == served.engine.sequences
        assert not served.engine.open


@pytest.mark.parametrize("message", range(6))
async def test_a_reader_that_stops_is_cut_at_every_message(serve: Serve, message: int) -> None:
    served = await serve({"answer": "abc"}, send_timeout=0.03)
    dropped = asyncio.Event()
    sent = 0

    async def freeze(_: Any) -> None:
        nonlocal sent
        sent += 1
        if sent > message:
            await asyncio.Event().wait()

    body = json.dumps(chat(stream=True)).encode()
    extensions = {"tunechat.abort": {"drop": dropped.set}}
    scope = make_scope("POST", "/v1/chat/completions", {"content-type": "application/json"}, extensions=extensions)
    await asyncio.wait_for(call(served.app, scope, body, on_send=freeze), 5)
    assert dropped.is_set()
    assert not served.engine.open


async def test_a_frozen_reader_piles_nothing_up(serve: Serve) -> None:
    served = await serve({"answer": "x" * 400}, send_timeout=0.2)
    frozen = asyncio.Event()

    async def freeze(message: Any) -> None:
        if message.get("body"):
            frozen.set()
            await asyncio.Event().wait()

    running = asyncio.create_task(stream(served, on_send=freeze))
    await frozen.wait()
    for _ in range(2000):
        await asyncio.sleep(0)
    generation = next(iter(served.gateway.drain._running))
    assert 0 < len(generation._channel) <= 256  # type: ignore[attr-defined]
    await running


async def test_heartbeats_fill_a_silence(serve: Serve) -> None:
    gate = asyncio.Event()
    served = await serve({"gates": {0: gate}}, heartbeat_seconds=0.03)
    seen: list[bytes] = []

    async def watch(message: Any) -> None:
        seen.append(message.get("body", b""))
        if seen.count(b": ping\n\n") == 3:
            gate.set()

    answer = await stream(served, on_send=watch)
    assert answer.complete
    assert seen.index(b": ping\n\n") > 0
    assert events_of(answer.body)[-1] == "[DONE]"


async def test_heartbeats_are_bounded_too(serve: Serve) -> None:
    served = await serve({"gates": {0: asyncio.Event()}}, heartbeat_seconds=0.02, send_timeout=0.03)

    async def freeze(message: Any) -> None:
        if message.get("body", b"").startswith(b":"):
            await asyncio.Event().wait()

    answer = await asyncio.wait_for(stream(served, on_send=freeze), 5)
    assert not answer.complete
    assert not served.engine.open


async def test_other_streams_go_on_while_one_is_frozen(serve: Serve) -> None:
    served = await serve({"answer": "x" * 50}, send_timeout=60)

    async def freeze(_: Any) -> None:
        await asyncio.Event().wait()

    frozen = [asyncio.create_task(stream(served, on_send=freeze)) for _ in range(5)]
    answers = await asyncio.gather(*(stream(served) for _ in range(5)))
    assert all(events_of(answer.body)[-1] == "[DONE]" for answer in answers)
    for task in frozen:
        task.cancel()
    await asyncio.gather(*frozen, return_exceptions=True)
    assert not served.engine.open


async def test_line_breaks_and_separators_stay_inside_one_event(serve: Serve) -> None:
    text = "a\nb\r\nc\u2028d\u2029e\x85f\n\ndata: x\n\n"
    served = await serve({"answer": text})
    chunks = events_of((await stream(served)).body)
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks[:-1]) == text
