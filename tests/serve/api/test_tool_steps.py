"""What steps look like, and where text goes on after them."""

from __future__ import annotations

from collections.abc import AsyncIterator

from tunechat.serve.api.events import Finished
from tunechat.serve.api.tool_steps import (
    AnswerPart,
    ToolCalled,
    ToolEvent,
    ToolReturned,
    merged,
    with_gaps,
    without_tools,
)
from tunechat.serve.api.turn_events import TurnPart
from tunechat.serve.text.dialects import ReasoningDelta, TextDelta
from tunechat.tools.records import Status, ToolResult

CALLED = ToolCalled(0, 0, "call_1", "echo", "{}")
RETURNED = ToolReturned(0, ToolResult("call_1", "echo", Status.OK, "x"))


async def of(*parts: AnswerPart) -> AsyncIterator[AnswerPart]:
    for part in parts:
        yield part


def text(value: str) -> TurnPart:
    return TurnPart(0, TextDelta(value))


def thought(value: str) -> TurnPart:
    return TurnPart(0, ReasoningDelta(value))


async def texts(*parts: AnswerPart) -> list[str]:
    return [getattr(part.event, "text", "") async for part in with_gaps(of(*parts)) if isinstance(part, TurnPart)]


async def test_an_empty_line_parts_the_texts_of_two_turns() -> None:
    assert await texts(text("a"), text("b"), CALLED, RETURNED, text(""), text("c"), text("d")) == [
        *("a", "b", "", "\n\nc", "d")
    ]


async def test_nothing_is_put_before_the_first_text() -> None:
    assert await texts(CALLED, RETURNED, text("a"), CALLED, RETURNED, CALLED, RETURNED, text("b")) == ["a", "\n\nb"]


async def test_thoughts_have_gaps_of_their_own() -> None:
    assert await texts(thought("a"), CALLED, RETURNED, thought("b"), text("c")) == ["a", "\n\nb", "c"]


async def test_steps_are_parted_from_turns_and_put_together() -> None:
    events: list[ToolEvent] = []
    end = Finished(0, "stop")
    turns = [part async for part in without_tools(of(text("a"), CALLED, RETURNED, end), events)]
    assert turns == [text("a"), end]
    (step,) = merged(events)["steps"]
    assert (step["index"], step["tool_call"]["id"], step["tool_result"]["content"]) == (0, "call_1", "x")
