"""Chat replies: whole, and as chunks in the one order that every client takes.

Role chunk, deltas, a chunk with the finish reason and an empty delta, then the usage chunk if it was asked for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from ..text.dialects import CallArguments, CallEnd, CallStart, ReasoningDelta, TextDelta
from .encoding import encode_json
from .events import Finished, Usage
from .ports import Text
from .replies import ReplyHead, chat_logprobs
from .tool_steps import FIELD, AnswerPart, ToolEvent
from .turn_events import Turn, TurnPart

_NOTHING: Mapping[str, Any] = {}


async def chat_chunks(
    head: ReplyHead,
    parts: AsyncIterator[AnswerPart],
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
    async for part in parts:
        if isinstance(part, Finished):
            yield chunk(part.index, {}, reason=part.reason)
        elif delta := _delta(part):
            scored = part.scored if isinstance(part, TurnPart) else ()
            logprobs = chat_logprobs(scored, text) if with_logprobs else None
            yield chunk(part.index if isinstance(part, TurnPart) else 0, delta, logprobs)
    if with_usage:
        yield {**base, "choices": [], "usage": usage.as_json()}


def _delta(part: TurnPart | ToolEvent) -> dict[str, Any]:
    """What a chunk says of `part`. Name and id of a call are said once, with arguments that are "" and not missing."""
    if not isinstance(part, TurnPart):
        return {FIELD: part.as_json()}
    match part.event:
        case TextDelta(text):
            return {"content": text}
        case ReasoningDelta(text):
            return {"reasoning_content": text}
        case CallStart(index, name):
            call = {"index": index, "id": part.call_id, "type": "function", "function": {"name": name, "arguments": ""}}
            return {"tool_calls": [call]}
        case CallArguments(index, fragment):
            return {"tool_calls": [{"index": index, "function": {"arguments": fragment}}]}
        case CallEnd():
            return {}


def chat_reply(
    head: ReplyHead,
    turns: Sequence[Turn],
    text: Text,
    usage: Usage,
    *,
    with_logprobs: bool,
    extra: Mapping[str, Any] = _NOTHING,
) -> bytes:
    """The whole reply as JSON, with `extra` in each message. Slow with many log-probabilities: call it in a thread."""
    return encode_json(
        {
            **head.as_json("chat.completion"),
            "choices": [
                {
                    "index": index,
                    "message": {**_message(turn), **extra},
                    "logprobs": chat_logprobs(turn.scored, text) if with_logprobs else None,
                    "finish_reason": turn.reason,
                }
                for index, turn in enumerate(turns)
            ],
            "usage": usage.as_json(),
        }
    )


def _message(turn: Turn) -> dict[str, Any]:
    content = turn.text or (None if turn.calls else "")
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    if turn.reasoning:
        message["reasoning_content"] = turn.reasoning
    if turn.calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in turn.calls
        ]
    return message
