"""Which calls a client sees of a turn, what the model reads after it, and what it may call then."""

from __future__ import annotations

from typing import Any

import pytest

from tunechat.serve.api.schemas.chat import ChatRequest
from tunechat.serve.api.tool_turns import ClientParts, history, later_choice
from tunechat.serve.api.turn_events import MadeCall, Turn, TurnPart
from tunechat.serve.text.dialects import CallArguments, CallEnd, CallStart, TextDelta
from tunechat.tests.serve.api.harness import chat
from tunechat.tools.records import Status, ToolResult

TOOLS = [{"type": "function", "function": {"name": name}} for name in ("a", "b", "c")]


def test_a_clients_calls_are_numbered_from_zero_and_others_are_not_seen() -> None:
    client = ClientParts(frozenset({"server"}))
    events: list[Any] = [TextDelta("x")]
    for index, name in enumerate(["server", "mine", "server", "mine"]):
        events += [CallStart(index, name), CallArguments(index, "{}"), CallEnd(index)]
    seen = [part.event for event in events if (part := client.of(TurnPart(0, event, (), "id"))) is not None]
    assert seen == [
        TextDelta("x"),
        *(CallStart(0, "mine"), CallArguments(0, "{}"), CallEnd(0)),
        *(CallStart(1, "mine"), CallArguments(1, "{}"), CallEnd(1)),
    ]


@pytest.mark.parametrize("arguments", ["[1]", "{", "", "nonsense", "[" * 100_000])
def test_arguments_that_are_no_object_are_not_shown_to_a_template(arguments: str) -> None:
    turn = Turn(texts=["So."], calls=[MadeCall("1", "a", [arguments])])
    answer, result = history(turn, [ToolResult("1", "a", Status.ERROR, "no JSON")])
    assert answer.for_template()["tool_calls"][0]["function"]["arguments"] == "{}"
    assert (answer.text, result.tool_call_id, result.text) == ("So.", "1", "no JSON")


def allowed(*names: str) -> dict[str, Any]:
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": tools}}


@pytest.mark.parametrize(
    ("choice", "withdrawn", "later"),
    [
        (None, "", "auto"),
        ("auto", "", "auto"),
        ("required", "", "auto"),
        ({"type": "function", "function": {"name": "a"}}, "", "auto"),
        ("required", "ab", allowed("c")),
        ("auto", "abc", "none"),
        (allowed("a", "b"), "", allowed("a", "b")),
        (allowed("a", "b"), "b", allowed("a")),
        (allowed("a", "b"), "ab", "none"),
    ],
)
def test_no_call_has_to_be_made_twice(choice: Any, withdrawn: str, later: Any) -> None:
    body = ChatRequest.model_validate(chat(tools=TOOLS, tool_choice=choice))
    assert later_choice(body, frozenset(withdrawn)) == later
