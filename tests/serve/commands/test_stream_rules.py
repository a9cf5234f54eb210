"""Each rule sees the stream that breaks it, and lets the good one pass."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tunechat.serve.commands.stream_rules import stream_problems

from .conftest import Stream, good_stream

Breaking = Callable[[Stream], Any]


def tool_stream() -> Stream:
    def piece(fields: dict[str, Any], function: dict[str, Any]) -> dict[str, Any]:
        return {"tool_calls": [{**fields, "function": function}]}

    deltas: list[tuple[dict[str, Any], str | None]] = [
        ({"role": "assistant", "content": ""}, None),
        (piece({"index": 0, "id": "call_a", "type": "function"}, {"name": "get_time", "arguments": ""}), None),
        (piece({"index": 0}, {"arguments": '{"city": '}), None),
        (piece({"index": 0}, {"arguments": '"Rome"}'}), None),
        (piece({"index": 1, "id": "call_b", "type": "function"}, {"name": "get_time", "arguments": ""}), None),
        (piece({"index": 1}, {"arguments": "{}"}), None),
        ({}, "tool_calls"),
    ]
    frame = good_stream({})[0]
    return [{**frame, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]} for delta, finish in deltas]


def test_good_streams_break_nothing() -> None:
    assert stream_problems(good_stream({}), done=True, usage_asked=False) == []
    asked = good_stream({"stream_options": {"include_usage": True}})
    assert stream_problems(asked, done=True, usage_asked=True) == []
    assert stream_problems(tool_stream(), done=True, usage_asked=False) == []


def delta(stream: Stream, index: int) -> dict[str, Any]:
    return stream[index]["choices"][0]["delta"]  # type: ignore[no-any-return]


def call(stream: Stream, index: int) -> dict[str, Any]:
    return delta(stream, index)["tool_calls"][0]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("breaking", "told"),
    [
        (lambda s: s[1].update(id="other"), "id is not the same"),
        (lambda s: s[1].update(created=2), "created is not the same"),
        (lambda s: s[1].pop("model"), "model is not the same"),
        (lambda s: s[1].update(object="chat.completion"), "object is not"),
        (lambda s: s[1].update(choices=None), "no list of choices"),
        (lambda s: s[1]["choices"][0].update(delta=None), "delta is null"),
        (lambda s: s[1]["choices"][0].pop("delta"), "delta is null"),
        (lambda s: delta(s, 0).pop("content"), "first delta"),
        (lambda s: delta(s, 0).update(content=None), "first delta"),
        (lambda s: s.pop(0), "first delta"),
        (lambda s: delta(s, 1).update(role="assistant"), "role is repeated"),
        (lambda s: s.pop(), "finish_reason is not set"),
        (lambda s: s[1]["choices"][0].update(finish_reason="stop"), "finish_reason is not set"),
        (lambda s: s[-1]["choices"][0].update(finish_reason="tool_call"), "finish_reason is not set"),
        (lambda s: delta(s, -1).update(content="!"), "beside finish_reason is not empty"),
        (lambda s: s[-1].update(usage={"total_tokens": 1}), "without being asked"),
        (lambda s: s.append({**s[0], "choices": []}), "without being asked"),
        (lambda s: s.clear(), "no chunk has a choice"),
    ],
)
def test_broken_stream_is_seen(breaking: Breaking, told: str) -> None:
    stream = copy.deepcopy(good_stream({}))
    breaking(stream)
    assert any(told in problem for problem in stream_problems(stream, done=True, usage_asked=False))


@pytest.mark.parametrize(
    ("breaking", "told"),
    [
        (lambda s: s.pop(), "not in the last chunk alone"),
        (lambda s: s[1].update(usage=s[-1]["usage"]), "not in the last chunk alone"),
        (lambda s: s[-1].update(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}]), "other choices than"),
        (lambda s: s[-1]["usage"].update(total_tokens=6), "total_tokens is not"),
        (lambda s: s[-1].update(usage=[]), "total_tokens is not"),
    ],
)
def test_broken_usage_is_seen(breaking: Breaking, told: str) -> None:
    stream = copy.deepcopy(good_stream({"stream_options": {"include_usage": True}}))
    breaking(stream)
    assert any(told in problem for problem in stream_problems(stream, done=True, usage_asked=True))


@pytest.mark.parametrize(
    ("breaking", "told"),
    [
        (lambda s: call(s, 2).pop("index"), "no index"),
        (lambda s: call(s, 2).update(index=None), "no index"),
        (lambda s: call(s, 1).pop("id"), "does not begin with id"),
        (lambda s: call(s, 1).pop("type"), "does not begin with id"),
        (lambda s: call(s, 1)["function"].pop("arguments"), "arguments of empty text"),
        (lambda s: call(s, 2)["function"].update(name=""), "repeats its id or name"),
        (lambda s: call(s, 2).update(id="call_a"), "repeats its id or name"),
        (lambda s: call(s, 2)["function"].update(arguments={"city": "Rome"}), "are not text"),
        (lambda s: call(s, 4).update(id="call_a"), "the same id"),
        (lambda s: s[-1]["choices"][0].update(finish_reason="stop"), "after a tool call is not tool_calls"),
    ],
)
def test_broken_tool_calls_are_seen(breaking: Breaking, told: str) -> None:
    stream = copy.deepcopy(tool_stream())
    breaking(stream)
    assert any(told in problem for problem in stream_problems(stream, done=True, usage_asked=False))


def test_missing_end_is_seen() -> None:
    assert stream_problems(good_stream({}), done=False, usage_asked=False) == ["the stream does not end with [DONE]"]
