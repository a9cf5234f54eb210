"""Text completions: whole, and as chunks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from .events import Delta, Event, Finished, Usage
from .ports import Text
from .replies import ReplyHead, completion_logprobs

_KIND = "text_completion"


async def completion_chunks(
    head: ReplyHead, events: AsyncIterator[Event], text: Text, usage: Usage, *, with_logprobs: bool, with_usage: bool
) -> AsyncIterator[dict[str, Any]]:
    """The reply's chunks: text as it comes, one chunk with each choice's finish reason, then the usage."""
    base = head.as_json(_KIND)
    if with_usage:
        base["usage"] = None
    async for event in events:
        if isinstance(event, Finished):
            choice = {"index": event.index, "text": "", "logprobs": None, "finish_reason": event.reason}
        else:
            logprobs = completion_logprobs(event.scored, text) if with_logprobs else None
            choice = {"index": event.index, "text": event.text, "logprobs": logprobs, "finish_reason": None}
        yield {**base, "choices": [choice]}
    if with_usage:
        yield {**base, "choices": [], "usage": usage.as_json()}


async def completion_reply(
    head: ReplyHead, events: AsyncIterator[Event], text: Text, usage: Usage, *, choices: int, with_logprobs: bool
) -> dict[str, Any]:
    """The whole reply."""
    deltas: list[list[Delta]] = [[] for _ in range(choices)]
    reasons: list[str | None] = [None] * choices
    async for event in events:
        if isinstance(event, Finished):
            reasons[event.index] = event.reason
        else:
            deltas[event.index].append(event)
    return {
        **head.as_json(_KIND),
        "choices": [
            {
                "index": index,
                "text": "".join(delta.text for delta in parts),
                "logprobs": completion_logprobs((one for delta in parts for one in delta.scored), text)
                if with_logprobs
                else None,
                "finish_reason": reason,
            }
            for index, (parts, reason) in enumerate(zip(deltas, reasons, strict=True))
        ],
        "usage": usage.as_json(),
    }
