"""Parts of a turn become blocks, one open at a time, and the whole message is what its events say."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from anthropic.lib.streaming._messages import accumulate_event
from hypothesis import given
from hypothesis import strategies as st

from tunechat.serve.api.events import Finished, Usage
from tunechat.serve.api.messages.events import MessageHead, message_events
from tunechat.serve.api.messages.usage import Ending, usage_json
from tunechat.serve.api.messages.whole import whole_message
from tunechat.serve.api.turn_events import TurnPart
from tunechat.serve.text.dialects import CallArguments, CallEnd, CallStart, ReasoningDelta, TextDelta, TurnEvent
from tunechat.tests.serve.api.messages.conftest import EVENT

HEAD = MessageHead("msg_1", "m", Ending(fills_context=False))
USAGE = Usage(prompt_tokens=10, completion_tokens=4, cached_tokens=3)
END = Finished(0, "stop")


async def parts_of(events: list[TurnEvent], end: Finished = END) -> AsyncIterator[TurnPart | Finished]:
    for event in events:
        has_id = isinstance(event, CallStart | CallArguments | CallEnd)
        yield TurnPart(0, event, call_id=f"call_{event.index}" if has_id else "")
    yield end


async def told(events: list[TurnEvent], end: Finished = END, head: MessageHead = HEAD) -> list[dict[str, Any]]:
    return [event async for event in message_events(head, parts_of(events, end), USAGE)]


async def made(events: list[TurnEvent], end: Finished = END) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(await whole_message(message_events(HEAD, parts_of(events, end), USAGE)))
    return message


def call(index: int, *fragments: str, complete: bool = True) -> list[TurnEvent]:
    return [CallStart(index, "f"), *(CallArguments(index, one) for one in fragments), CallEnd(index, complete)]


async def test_an_empty_answer_has_no_blocks() -> None:
    assert [event["type"] for event in await told([])] == ["message_start", "message_delta", "message_stop"]
    message = await made([TextDelta("")])
    assert (message["content"], message["stop_reason"]) == ([], "end_turn")


async def test_text_may_stand_before_between_and_behind_calls() -> None:
    events = [TextDelta("a"), TextDelta("b"), *call(0, '{"x"', ": 1}"), *call(1, "{}"), TextDelta("c")]
    assert (await made(events))["content"] == [
        {"type": "text", "text": "ab"},
        {"type": "tool_use", "id": "toolu_0", "name": "f", "input": {"x": 1}},
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}},
        {"type": "text", "text": "c"},
    ]


@pytest.mark.parametrize(
    ("fragments", "shown"),
    [
        ((), {}),
        (("{",), {}),
        (('{"a": [1, {"b": "xy',), {"a": [1, {}]}),
        (('{"a": 1, "b"',), {"a": 1}),
        (("{" + '"a": {' * 300,), {}),
    ],
)
async def test_of_a_call_that_was_cut_off_there_is_what_came(fragments: tuple[str, ...], shown: Any) -> None:
    message = await made(call(0, *fragments, complete=False), Finished(0, "length"))
    assert message["content"][0]["input"] == shown
    assert message["stop_reason"] == "max_tokens"


async def test_numbers_are_as_the_model_wrote_them() -> None:
    big = '{"a": 123456789012345678901234567890, "b": 1e400, "c": 0.10}'
    reply = await whole_message(message_events(HEAD, parts_of(call(0, big)), USAGE))
    assert big.encode() in reply


@pytest.mark.parametrize(
    ("end", "fills", "reason", "stop"),
    [
        (Finished(0, "stop"), False, "end_turn", None),
        (Finished(0, "stop", "x"), True, "stop_sequence", "x"),
        (Finished(0, "tool_calls", "x"), False, "tool_use", None),
        (Finished(0, "tool_calls"), True, "tool_use", None),
        (Finished(0, "length"), False, "max_tokens", None),
        (Finished(0, "length"), True, "model_context_window_exceeded", None),
    ],
)
def test_every_end_has_its_reason(end: Finished, fills: bool, reason: str, stop: str | None) -> None:
    told = Ending(fills_context=fills).as_json(end.reason, end.stop)
    assert told == {"stop_reason": reason, "stop_sequence": stop}


def test_cached_tokens_are_counted_apart() -> None:
    assert usage_json(USAGE) == {
        "input_tokens": 7,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 3,
        "output_tokens": 4,
    }


PIECES = st.one_of(
    st.builds(lambda text: [TextDelta(text)], st.text(max_size=3)),
    st.builds(lambda text: [ReasoningDelta(text)], st.text(max_size=3)),
    st.builds(
        lambda value: call(0, *json.dumps(value)), st.dictionaries(st.text(max_size=2), st.integers(), max_size=2)
    ),
)


@given(pieces=st.lists(PIECES, max_size=6))
async def test_the_clients_own_sum_of_the_events_is_the_whole_message(pieces: list[list[TurnEvent]]) -> None:
    events = [event for piece in pieces for event in piece]
    snapshot: Any = None
    buffers: dict[int, bytes] = {}
    open_blocks = 0
    for event in await told(events):
        open_blocks += {"content_block_start": 1, "content_block_stop": -1}.get(event["type"], 0)
        assert open_blocks in (0, 1)
        parsed = EVENT.validate_python(event)
        snapshot = accumulate_event(event=parsed, current_snapshot=snapshot, json_bufs=buffers)
    message = await made(events)
    assert [block.to_dict() for block in snapshot.content] == message["content"]
    assert snapshot.usage.to_dict() == message["usage"]
    assert snapshot.stop_reason == message["stop_reason"]
