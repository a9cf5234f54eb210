"""What a stream of chat completion chunks must look like, so that strict clients can read it.

Each rule is one that some server broke and some client died of: choices or delta null, a usage chunk without choices,
tool calls without index, arguments that are no text, the wrong finish_reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

FINISH_REASONS = frozenset({"stop", "length", "tool_calls", "content_filter"})
Chunk = dict[str, Any]


def stream_problems(chunks: Sequence[Chunk], *, done: bool, usage_asked: bool) -> list[str]:
    """Every rule that the stream breaks, in words; empty for a good one. `done` says whether [DONE] came last."""
    return [
        *_frame_problems(chunks, done),
        *_usage_problems(chunks, usage_asked),
        *_delta_problems(chunks),
        *_tool_problems(chunks),
    ]


def _frame_problems(chunks: Sequence[Chunk], done: bool) -> Iterator[str]:
    if not done:
        yield "the stream does not end with [DONE]"
    for field in ("id", "created", "model"):
        if len({repr(chunk.get(field)) for chunk in chunks}) != 1:
            yield f"{field} is not the same in all chunks"
    if any(chunk.get("object") != "chat.completion.chunk" for chunk in chunks):
        yield "object is not chat.completion.chunk everywhere"
    if any(not isinstance(chunk.get("choices"), list) for chunk in chunks):
        yield "a chunk has no list of choices"


def _usage_problems(chunks: Sequence[Chunk], asked: bool) -> Iterator[str]:
    reports = [index for index, chunk in enumerate(chunks) if chunk.get("usage") is not None]
    if not asked:
        if reports or any(chunk.get("choices") == [] for chunk in chunks):
            yield "usage comes without being asked for"
        return
    if reports != [len(chunks) - 1]:
        yield "usage, when asked for, is not in the last chunk alone"
    elif chunks[-1].get("choices") != []:
        yield "the usage chunk has other choices than []"
    elif not _adds_up(chunks[-1]["usage"]):
        yield "total_tokens is not prompt_tokens plus completion_tokens"


def _adds_up(usage: Any) -> bool:
    if not isinstance(usage, dict):
        return False
    prompt, completion, total = (usage.get(name) for name in ("prompt_tokens", "completion_tokens", "total_tokens"))
    return isinstance(prompt, int) and isinstance(completion, int) and prompt + completion == total


def choices_of(chunks: Sequence[Chunk]) -> list[dict[str, Any]]:
    """All choices of all chunks, in order."""
    return [choice for chunk in chunks for choice in chunk.get("choices") or () if isinstance(choice, dict)]


def _delta_problems(chunks: Sequence[Chunk]) -> Iterator[str]:
    choices = choices_of(chunks)
    if not choices:
        yield "no chunk has a choice"
        return
    deltas = [choice["delta"] for choice in choices if isinstance(choice.get("delta"), dict)]
    if len(deltas) != len(choices):
        yield "a delta is null or missing"
        return
    if deltas[0] != {**deltas[0], "role": "assistant", "content": ""}:
        yield "the first delta is not the role with empty content"
    if any("role" in delta for delta in deltas[1:]):
        yield "the role is repeated"
    reasons = [choice.get("finish_reason") for choice in choices]
    if any(reason is not None for reason in reasons[:-1]) or reasons[-1] not in FINISH_REASONS:
        yield "finish_reason is not set on the last choice alone"
    elif deltas[-1]:
        yield "the delta beside finish_reason is not empty"


def _tool_problems(chunks: Sequence[Chunk]) -> Iterator[str]:
    choices = choices_of(chunks)
    deltas = [choice["delta"] for choice in choices if isinstance(choice.get("delta"), dict)]
    pieces = [piece for delta in deltas for piece in delta.get("tool_calls") or ()]
    if not pieces:
        return
    if any(type(piece.get("index")) is not int for piece in pieces):
        yield "a tool call has no index"
        return
    ids: list[Any] = []
    for index in sorted({piece["index"] for piece in pieces}):
        mine = [piece for piece in pieces if piece["index"] == index]
        ids.append(mine[0].get("id"))
        functions = [piece.get("function") or {} for piece in mine]
        if not mine[0].get("id") or mine[0].get("type") != "function" or not functions[0].get("name"):
            yield f"tool call {index} does not begin with id, type and name"
        if functions[0].get("arguments") != "":
            yield f"tool call {index} does not begin with arguments of empty text"
        if any("name" in function or piece.get("id") for piece, function in zip(mine[1:], functions[1:], strict=True)):
            yield f"tool call {index} repeats its id or name"
        if any(not isinstance(function.get("arguments", ""), str) for function in functions):
            yield f"the arguments of tool call {index} are not text"
    if len(set(map(repr, ids))) != len(ids):
        yield "two tool calls have the same id"
    if choices[-1].get("finish_reason") != "tool_calls":
        yield "finish_reason after a tool call is not tool_calls"
