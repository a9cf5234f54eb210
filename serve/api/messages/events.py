"""An answer of the Messages API as the events of its stream."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

from ...text.dialects import CallArguments, CallEnd, CallStart, ReasoningDelta, TextDelta
from ..events import Finished, Usage
from ..turn_events import TurnPart
from .usage import Ending, usage_json

_CALL = "call_"

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class MessageHead:
    """What is known of an answer before its first token. `omits_thoughts`: only that there are any is shown."""

    id: str
    model: str
    ending: Ending
    omits_thoughts: bool = False

    def start(self, usage: Usage) -> Event:
        """The message with nothing in it."""
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage_json(usage),
        }


async def message_events(
    head: MessageHead, parts: AsyncIterator[TurnPart | Finished], usage: Usage
) -> AsyncIterator[Event]:
    """All events but pings: the message starts with its first part, when it is known what the cache had of it."""
    writer = _Writer(omits_thoughts=head.omits_thoughts)
    is_started = False
    async for part in parts:
        if not is_started:
            is_started = True
            yield {"type": "message_start", "message": head.start(usage)}
        if isinstance(part, Finished):
            for event in writer.close():
                yield event
            yield {
                "type": "message_delta",
                "delta": head.ending.as_json(part.reason, part.stop),
                "usage": usage_json(usage),
            }
        else:
            for event in writer.write(part):
                yield event
    yield {"type": "message_stop"}


class _Writer:
    """Puts the parts of a turn into blocks, one open at a time."""

    def __init__(self, *, omits_thoughts: bool) -> None:
        self._omits_thoughts = omits_thoughts
        self._index = -1
        self._open: str | None = None
        self._thought = hashlib.sha256()

    def write(self, part: TurnPart) -> Iterator[Event]:
        match part.event:
            case TextDelta(text) if text:
                yield from self._enter({"type": "text", "text": ""})
                yield self._delta({"type": "text_delta", "text": text})
            case ReasoningDelta(text) if text:
                yield from self._enter({"type": "thinking", "thinking": "", "signature": ""})
                self._thought.update(text.encode("utf-8", "surrogatepass"))
                if not self._omits_thoughts:
                    yield self._delta({"type": "thinking_delta", "thinking": text})
            case CallStart(_, name):
                yield from self.close()
                id_ = f"toolu_{part.call_id.removeprefix(_CALL)}"
                yield from self._enter({"type": "tool_use", "id": id_, "name": name, "input": {}})
            case CallArguments(_, fragment):
                yield self._delta({"type": "input_json_delta", "partial_json": fragment})
            case CallEnd():
                yield from self.close()

    def close(self) -> Iterator[Event]:
        """Ends the open block, if there is one. Thoughts are signed: the signature says which they are, no more."""
        if self._open == "thinking":
            signature = base64.b64encode(self._thought.digest()).decode()
            yield self._delta({"type": "signature_delta", "signature": signature})
        if self._open is not None:
            yield {"type": "content_block_stop", "index": self._index}
        self._open = None

    def _enter(self, block: Event) -> Iterator[Event]:
        """Goes on in the open block when it is of the kind of `block`, else begins `block`."""
        if self._open == block["type"]:
            return
        yield from self.close()
        self._index += 1
        self._open = block["type"]
        yield {"type": "content_block_start", "index": self._index, "content_block": block}

    def _delta(self, delta: Event) -> Event:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}
