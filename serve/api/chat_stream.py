"""Chat replies: whole, and as chunks in the one order that every client takes.

Role chunk, deltas, a chunk with the finish reason and an empty delta, then the usage chunk if it was asked for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from .encoding import encode_json
from .events import Event, Finished, Usage
from .ports import Text
from .replies import Choice, ReplyHead, chat_logprobs


async def chat_chunks(
    head: ReplyHead,
    events: AsyncIterator[Event],
    text: Text,
    usage: Usage,
    *,
    choices: int,
    with_logprobs: bool,
    with_usage: bool,
) -> AsyncIterator[dict[str, Any]]:
    """The reply's chunks. With `with_usage` every chunk has a `usage`, null on all but the last."""
    base = head.as_json("chat.completion.chunk")
    if with_usage:
        base["usage"] = None

    def chunk(index: int, delta: dict[str, Any], logprobs: Any = None, reason: str | None = None) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return {**base, "choices": [choice]}

    for index in range(choices):
        yield chunk(index, {"role": "assistant", "content": ""})
    async for event in events:
        if isinstance(event, Finished):
            yield chunk(event.index, {}, reason=event.reason)
        else:
            logprobs = chat_logprobs(event.scored, text) if with_logprobs else None
            yield chunk(event.index, {"content": event.text}, logprobs)
    if with_usage:
        yield {**base, "choices": [], "usage": usage.as_json()}


def chat_reply(head: ReplyHead, choices: Sequence[Choice], text: Text, usage: Usage, *, with_logprobs: bool) -> bytes:
    """The whole reply as JSON. Slow with many log-probabilities: call it in a thread."""
    return encode_json(
        {
            **head.as_json("chat.completion"),
            "choices": [
                {
                    "index": index,
                    "message": {"role": "assistant", "content": choice.text, "refusal": None},
                    "logprobs": chat_logprobs(choice.scored, text) if with_logprobs else None,
                    "finish_reason": choice.reason,
                }
                for index, choice in enumerate(choices)
            ],
            "usage": usage.as_json(),
        }
    )
