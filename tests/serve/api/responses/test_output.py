"""Items and their events, for whatever order parts come in."""

from __future__ import annotations

from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from tunechat.serve.api.events import Finished
from tunechat.serve.api.ports import Text
from tunechat.serve.api.responses.output import Output
from tunechat.serve.api.turn_events import TurnPart
from tunechat.serve.text.dialects import CallArguments, CallEnd, CallStart, ReasoningDelta, TextDelta
from tunechat.serve.text.dialects.events import TurnEvent

SPACES = {"docs__look": ("docs", "look")}
pieces = st.lists(st.sampled_from(["a", "bc", " "]), max_size=3)


def text(pieces: list[str]) -> list[TurnEvent]:
    return [TextDelta(piece) for piece in pieces]


def thoughts(pieces: list[str]) -> list[TurnEvent]:
    return [ReasoningDelta(piece) for piece in pieces]


def call(name: str, pieces: list[str], complete: bool) -> list[TurnEvent]:
    return [CallStart(0, name), *(CallArguments(0, piece) for piece in pieces), CallEnd(0, complete)]


turns = st.lists(
    st.one_of(
        st.builds(text, pieces),
        st.builds(thoughts, pieces),
        st.builds(call, st.sampled_from(["f", "docs__look"]), pieces, st.booleans()),
    ),
    max_size=5,
)


def events_of(output: Output, segments: list[list[TurnEvent]]) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    for number, segment in enumerate(segments):
        for event in segment:
            told += output.push(TurnPart(0, event, call_id=f"call_{number}"))
    return told


@settings(max_examples=50)
@given(turns, st.sampled_from(["stop", "length", "tool_calls"]))
def test_every_item_opens_grows_and_closes_once(segments: list[list[TurnEvent]], reason: str) -> None:
    output = Output(cast(Text, None), SPACES)
    told = events_of(output, segments)
    told += output.push(Finished(0, reason))
    assert output.reason == reason
    assert output.items
    opened: list[str] = []
    is_open, grown = False, ""
    for event in told:
        kind = event["type"].removeprefix("response.")
        if kind == "output_item.added":
            assert not is_open
            is_open, grown = True, ""
            assert (event["output_index"], event["item"]["status"]) == (len(opened), "in_progress")
            assert event["item"].get("arguments", "") == ""
            assert event["item"].get("content", []) == []
            opened.append(event["item"]["id"])
            continue
        assert is_open
        assert event["output_index"] == len(opened) - 1
        if kind.endswith(".delta"):
            grown += event["delta"]
        elif kind in ("output_text.done", "reasoning_text.done"):
            assert event["text"] == grown
        elif kind == "function_call_arguments.done":
            assert event["arguments"] == grown
        elif kind == "output_item.done":
            assert event["item"] == output.items[event["output_index"]]
            is_open = False
    assert not is_open
    assert opened == [item["id"] for item in output.items]
    assert "in_progress" not in {item["status"] for item in output.items}
    said = "".join(one.text for segment in segments for one in segment if isinstance(one, TextDelta))
    shown = [part["text"] for item in output.items if item["type"] == "message" for part in item["content"]]
    assert "".join(shown) == said


def test_a_name_of_a_namespace_is_told_as_one() -> None:
    output = Output(cast(Text, None), SPACES)
    events_of(output, [call("docs__look", ["{}"], True)])
    (item,) = output.items
    assert (item["namespace"], item["name"], item["arguments"], item["call_id"]) == ("docs", "look", "{}", "call_0")


def test_an_interruption_keeps_what_there_is() -> None:
    output = Output(cast(Text, None), {})
    events_of(output, [text(["a", "b"])])
    output.interrupt()
    (item,) = output.items
    assert (item["status"], item["content"][0]["text"]) == ("incomplete", "ab")
