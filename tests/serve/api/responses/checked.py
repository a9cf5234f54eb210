"""Responses and their events, checked by the types of OpenAI's client, and by its own assembly of streams."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseItem, ResponseStreamEvent
from pydantic import TypeAdapter

from tunechat.tests.serve.api.conftest import Served
from tunechat.tests.serve.api.harness import MODEL

URL = "/v1/responses"
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
ITEM: TypeAdapter[Any] = TypeAdapter(ResponseItem)


def ask(given: Any = "Hi", **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "input": given} | fields


async def whole(served: Served, given: Any = "Hi", **fields: Any) -> Response:
    """The reply, checked by its type."""
    response = await served.client.post(URL, json=ask(given, **fields))
    assert response.status_code == 200, response.text
    return Response.model_validate(response.json())


async def stream(served: Served, given: Any = "Hi", **fields: Any) -> list[dict[str, Any]]:
    """The events, each checked by its type, and all of them together by their order."""
    response = await served.client.post(URL, json=ask(given, stream=True, **fields))
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    return check_stream(response.text)


def check_stream(text: str) -> list[dict[str, Any]]:
    """The events of a stream. What OpenAI's helper makes of them is what the last one says."""
    events: list[dict[str, Any]] = []
    state: Any = ResponseStreamState(input_tools=openai.omit, text_format=openai.omit)
    assert text.endswith("\n\n")
    for block in text[:-2].split("\n\n"):
        if block.startswith(":"):
            continue
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        assert event["sequence_number"] == len(events)
        typed = EVENT.validate_python(event)
        assert typed.type == event["type"]
        state.handle_event(typed)
        events.append(event)
    kinds = [event["type"] for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] in ("response.completed", "response.incomplete", "response.failed")
    _check_items(events)
    return events


def _check_items(events: list[dict[str, Any]]) -> None:
    """Deltas add up to what is done, what is done to the response at the end."""
    final = events[-1]["response"]
    done = {event["output_index"]: event["item"] for event in events if event["type"] == "response.output_item.done"}
    added = [event["output_index"] for event in events if event["type"] == "response.output_item.added"]
    assert added == list(range(len(added)))
    if final["status"] != "failed":
        assert [done[index] for index in added] == final["output"]
    for kind, field in (
        ("output_text", "text"),
        ("reasoning_text", "text"),
        ("function_call_arguments", "arguments"),
        ("mcp_call_arguments", "arguments"),
    ):
        for event in events:
            if event["type"] == f"response.{kind}.done":
                pieces = [
                    one["delta"]
                    for one in events
                    if one["type"] == f"response.{kind}.delta" and one["item_id"] == event["item_id"]
                ]
                assert "".join(pieces) == event[field]


async def refused(served: Served, status: int = 400, **fields: Any) -> dict[str, Any]:
    """The error that the request is refused with."""
    response = await served.client.post(URL, json={"model": MODEL} | fields)
    return error_of(response, status)


def error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    return error


def prompt_of(served: Served, turn: int = -1) -> str:
    """What the model read."""
    return served.engine.text.decode(served.engine.submitted[turn][0], skip_special=False)
