"""Anthropic's own client in front of the application, and streams that are checked by its types."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter

from tunechat.tests.serve.api.conftest import Served
from tunechat.tests.serve.api.harness import MODEL

URL = "/v1/messages"
COUNT_URL = "/v1/messages/count_tokens"
EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)

Connect = Callable[..., anthropic.AsyncAnthropic]


def ask(content: Any = "Hi", **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "max_tokens": 300, "messages": [{"role": "user", "content": content}]} | fields


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """`connect(served, api_key="any")`: the client, which does not try again."""
    async with contextlib.AsyncExitStack() as stack:

        def make(served: Served, **options: Any) -> anthropic.AsyncAnthropic:
            http = httpx2.AsyncClient(transport=httpx2.ASGITransport(served.app))
            stack.push_async_callback(http.aclose)
            return anthropic.AsyncAnthropic(
                base_url="http://localhost:8000",
                http_client=http,
                **{"max_retries": 0} | (options or {"api_key": "any"}),
            )

        yield make


async def whole(served: Served, body: dict[str, Any]) -> Message:
    """The reply to `body`, checked by its type."""
    response = await served.client.post(URL, json=body)
    assert response.status_code == 200, response.text
    return Message.model_validate(response.json(), strict=True)


async def stream(served: Served, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of the answer to `body`, each of its type, with its name on a line of its own; pings left in."""
    response = await served.client.post(URL, json=body | {"stream": True})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    events = []
    for block in response.text.split("\n\n")[:-1]:
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        if event["type"] not in ("ping", "error"):
            EVENT.validate_python(event)
        events.append(event)
    return events


def prompt_of(served: Served, number: int = -1) -> str:
    """What the model was asked, as text."""
    return served.engine.text.decode(served.engine.submitted[number][0], skip_special=False)
