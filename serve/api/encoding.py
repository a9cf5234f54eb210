"""JSON and server-sent events as bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

_encoder = msgspec.json.Encoder()

DONE = b"data: [DONE]\n\n"


def encode_json(value: Any) -> bytes:
    """Compact JSON in UTF-8."""
    return _encoder.encode(value)


def encode_event(value: Any) -> bytes:
    """One `data:` event. JSON has no raw line breaks, so one line always holds it."""
    return b"data: " + _encoder.encode(value) + b"\n\n"


def encode_typed_event(value: Mapping[str, Any]) -> bytes:
    """The same, with the `type` of `value` on an `event:` line of its own."""
    return f"event: {value['type']}\n".encode() + encode_event(value)
