"""Leaving: new requests are refused, queued ones told, running ones finish or are ended with a word."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tunechat.tests.serve.api.conftest import Serve, Served
from tunechat.tests.serve.api.harness import Answer, call, chat, events_of, make_scope

URL = "/v1/chat/completions"


def request(served: Served, *, on_send: Any = None, **fields: Any) -> asyncio.Task[Answer]:
    body = json.dumps(chat(**fields)).encode()
    scope = make_scope("POST", URL, {"content-type": "application/json"})
    return asyncio.create_task(call(served.app, scope, body, on_send=on_send))


async def test_new_requests_are_refused_and_readiness_turns_red_at_once(serve: Serve) -> None:
    served = await serve()
    assert (await served.client.get("/readyz")).status_code == 200
    served.gateway.drain.begin()
    ready = await served.client.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (503, "draining")
    for path in ("/livez", "/metrics", "/version"):
        assert (await served.client.get(path)).status_code == 200
    response = await served.client.post(URL, json=chat())
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "shutting_down"
    assert int(response.headers["retry-after"]) > 0
    assert response.headers["connection"] == "close"
    assert not served.engine.submitted


async def test_running_requests_finish_and_queued_ones_are_told(serve: Serve) -> None:
    running_gate, queued_gate = asyncio.Event(), asyncio.Event()
    served = await serve({"gates": {2: running_gate}})
    running = [request(served, stream=stream) for stream in (True, False)]
    await served.engine.until_waiting(2)
    served.engine.gates = {0: queued_gate}
    queued = [request(served, stream=stream) for stream in (True, False)]
    await served.engine.until_waiting(4)
    served.gateway.drain.begin()
    for answer in await asyncio.gather(*queued):
        assert answer.status == 503
        assert answer.headers["retry-after"] == "5"
    assert not await served.gateway.drain.wait_idle(0.01)
    running_gate.set()
    stream, whole = await asyncio.gather(*running)
    assert events_of(stream.body)[-1] == "[DONE]"
    assert whole.json["choices"][0]["finish_reason"] == "stop"
    assert await served.gateway.drain.wait_idle(1)
    assert not served.engine.open


async def test_forcing_gives_every_stream_one_error_and_an_end(serve: Serve) -> None:
    served = await serve({"gates": {2: asyncio.Event()}})
    shown = asyncio.Event()

    async def watch(message: Any) -> None:
        if b"content" in message.get("body", b""):
            shown.set()

    running = [request(served, on_send=watch, stream=True), request(served)]
    await asyncio.gather(shown.wait(), served.engine.until_waiting(2))
    served.gateway.drain.force()
    stream, whole = await asyncio.gather(*running)
    events = events_of(stream.body)
    assert stream.complete
    assert events[-1]["error"]["code"] == "stopping"
    assert [event for event in events if "error" in event] == events[-1:]
    assert (whole.status, whole.json["error"]["code"]) == (503, "stopping")
    assert await served.gateway.drain.wait_idle(1)
    assert not served.engine.open


async def test_a_request_that_was_being_read_is_told_too(serve: Serve) -> None:
    served = await serve()
    body = json.dumps(chat()).encode()
    reading, read = asyncio.Event(), asyncio.Event()
    sent: list[Any] = []

    async def receive() -> Any:
        if read.is_set():
            await asyncio.Event().wait()
        reading.set()
        await read.wait()
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = make_scope("POST", URL, {"content-type": "application/json"})
    task = asyncio.create_task(served.app(scope, receive, send))
    await reading.wait()
    served.gateway.drain.begin()
    read.set()
    await asyncio.wait_for(task, 5)
    assert sent[0]["status"] == 503
    assert not served.engine.open
