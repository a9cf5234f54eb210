"""Text completions: whole, and as chunks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from .encoding import encode_json
from .events import Delta, Event, Finished, Usage
from .ports import Text
from .replies import Choice, ReplyHead, completion_logprobs

_KIND = "text_completion"
# More than this are put into words in a thread.
_MANY_TOKENS = 64


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
            logprobs = await _logprobs(event, text) if with_logprobs else None
            choice = {"index": event.index, "text": event.text, "logprobs": logprobs, "finish_reason": None}
        yield {**base, "choices": [choice]}
    if with_usage:
        yield {**base, "choices": [], "usage": usage.as_json()}


async def _logprobs(delta: Delta, text: Text) -> dict[str, Any]:
    """As the reply says them. An echoed prompt comes in one piece, which may be long."""
    if len(delta.scored) > _MANY_TOKENS:
        return await asyncio.to_thread(completion_logprobs, delta.scored, text)
    return completion_logprobs(delta.scored, text)


def completion_reply(
    head: ReplyHead, choices: Sequence[Choice], text: Text, usage: Usage, *, with_logprobs: bool
) -> bytes:
    """The whole reply as JSON. Slow with many log-probabilities: call it in a thread."""
    return encode_json(
        {
            **head.as_json(_KIND),
            "choices": [
                {
                    "index": index,
                    "text": choice.text,
                    "logprobs": completion_logprobs(choice.scored, text) if with_logprobs else None,
                    "finish_reason": choice.reason,
                }
                for index, choice in enumerate(choices)
            ],
            "usage": usage.as_json(),
        }
    )
