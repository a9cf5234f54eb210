"""Parts of turns: what a parser finds, with ids, scores and the right end, for every choice by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator

from hypothesis import given
from hypothesis import strategies as st

from tunechat.serve.api.events import Delta, Event, Finished, ScoredToken
from tunechat.serve.api.turn_events import MakeParser, Turn, TurnPart, collect_turns, turn_events
from tunechat.serve.text.dialects import CallEnd, CallStart, ReasoningDelta, TextDelta, Tool, TurnParser
from tunechat.serve.text.dialects.choice import make_dialect
from tunechat.serve.text.dialects.generic import Generic

CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
DIALECT = make_dialect(Generic(), "<think></think>", {})
TOOLS = (Tool("add"),)


def calls() -> TurnParser:
    return DIALECT.parser(TOOLS, vouched=True)


def thoughts() -> TurnParser:
    return DIALECT.parser((), thinking="may")


async def stream(events: list[Event]) -> AsyncIterator[Event]:
    for event in events:
        yield event


async def parts_of(events: list[Event], make: MakeParser | None) -> list[TurnPart | Finished]:
    return [part async for part in turn_events(stream(events), make)]


async def turn_of(text: str, reason: str = "stop", make: MakeParser | None = calls) -> Turn:
    events: list[Event] = [*(Delta(0, letter) for letter in text), Finished(0, reason)]
    (turn,) = await collect_turns(turn_events(stream(events), make), 1)
    return turn


def scored(token: int) -> ScoredToken:
    return ScoredToken(token, -1.0, (), token)


async def test_text_without_a_parser_passes_as_it_is() -> None:
    parts = await parts_of([Delta(0, CALL, (scored(1),)), Finished(0, "stop")], None)
    assert parts == [TurnPart(0, TextDelta(CALL), (scored(1),)), Finished(0, "stop")]


async def test_a_call_ends_the_turn_as_a_call() -> None:
    turn = await turn_of(f"Well.\n{CALL}")
    assert (turn.text, turn.reason) == ("Well.", "tool_calls")
    assert [(call.name, call.arguments) for call in turn.calls] == [("add", '{"a": 1}')]


async def test_the_limit_is_told_even_behind_a_whole_call() -> None:
    assert (await turn_of(CALL, "length")).reason == "length"


async def test_a_call_that_a_stop_string_cut_off_is_not_one_to_run() -> None:
    turn = await turn_of(CALL[:46])
    assert turn.reason == "stop"
    assert turn.calls[0].arguments.startswith("{")


async def test_ids_are_the_calls_own() -> None:
    events: list[Event] = [Delta(0, CALL * 2), Delta(1, CALL), Finished(0, "stop"), Finished(1, "stop")]
    parts = [part for part in await parts_of(events, calls) if isinstance(part, TurnPart)]
    starts = [part for part in parts if isinstance(part.event, CallStart)]
    ends = [part for part in parts if isinstance(part.event, CallEnd)]
    assert [part.index for part in starts] == [0, 0, 1]
    assert len({part.call_id for part in starts}) == 3
    assert [part.call_id for part in ends] == [part.call_id for part in starts]
    assert all(part.call_id.startswith("call_") for part in starts)


async def test_choices_do_not_mix() -> None:
    mixed: list[Event] = []
    for letter in CALL:
        mixed += [Delta(0, letter), Delta(1, letter.upper())]
    turns = await collect_turns(turn_events(stream([*mixed, Finished(1, "stop"), Finished(0, "stop")]), calls), 2)
    assert [len(turn.calls) for turn in turns] == [1, 0]
    assert turns[1].text == CALL.upper()


@given(st.lists(st.integers(1, 8), max_size=20))
async def test_every_score_comes_once_and_in_order(cuts: list[int]) -> None:
    text = "<think>\nI see.\n</think>\n\nYes. "
    events: list[Event] = []
    for length in [*cuts, len(text)]:
        piece, text = text[:length], text[length:]
        events.append(Delta(0, piece, tuple(scored(len(events) * 8 + at) for at in range(len(piece)))))
    parts = await parts_of([*events, Finished(0, "stop")], thoughts)
    given_ones = [one for event in events if isinstance(event, Delta) for one in event.scored]
    assert [one for part in parts if isinstance(part, TurnPart) for one in part.scored] == given_ones
    thought = "".join(
        part.event.text for part in parts if isinstance(part, TurnPart) and isinstance(part.event, ReasoningDelta)
    )
    assert thought == "I see."
