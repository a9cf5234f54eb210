"""An answer of the Messages API in one piece: its events put together, so that both say the same."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from msgspec import Raw
from pydantic_core import from_json

from ..encoding import encode_json
from .events import Event

_FIELDS = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "signature",
    "input_json_delta": "partial_json",
}


async def whole_message(events: AsyncIterator[Event]) -> bytes:
    """The message that `events` make, as JSON."""
    message: Event = {}
    pieces: dict[str, list[str]] = {}
    async for event in events:
        match event["type"]:
            case "message_start":
                message = event["message"]
            case "content_block_start":
                message["content"].append(dict(event["content_block"]))
            case "content_block_delta":
                field = _FIELDS[event["delta"]["type"]]
                pieces.setdefault(field, []).append(event["delta"][field])
            case "content_block_stop":
                _fill(message["content"][-1], {field: "".join(texts) for field, texts in pieces.items()})
                pieces.clear()
            case "message_delta":
                message |= {**event["delta"], "usage": event["usage"]}
    return encode_json(message)


def _fill(block: Event, fields: dict[str, str]) -> None:
    if block["type"] == "tool_use":
        block["input"] = _input(fields.get("partial_json", ""))
    else:
        block |= fields


def _input(text: str) -> Any:
    """Arguments as the model wrote them; of those that something cut off, what is there of them."""
    try:
        json.loads(text)
    except ValueError:
        try:
            value = from_json(text, allow_partial=True)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}
    return Raw(text.encode())
