"""What the choices of a chat consist of, as they come: the one stream that whole replies and chunks are made from."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ..text.dialects import CallArguments, CallEnd, CallStart, ReasoningDelta, TextDelta, TurnEvent, TurnParser
from .events import Delta, Event, Finished, ScoredToken

MakeParser = Callable[[], TurnParser]
# How OpenAI's ids are made up; clients tell calls of one conversation apart by them.
_ID_BYTES = 12


@dataclass(frozen=True, slots=True)
class TurnPart:
    """One event of choice `index`. `call_id` is that of its call, "" where it has none.

    `scored` are the tokens that came since the last part, where log-probabilities were asked for.
    """

    index: int
    event: TurnEvent
    scored: tuple[ScoredToken, ...] = ()
    call_id: str = ""


async def turn_events(
    events: AsyncIterator[Event], make_parser: MakeParser | None
) -> AsyncIterator[TurnPart | Finished]:
    """The parts of every choice, and how each ended: "stop", "length" or "tool_calls".

    Without a parser, all text is text.
    """
    readers: dict[int, _Reader] = {}
    async for event in events:
        if event.index not in readers:
            readers[event.index] = _Reader(event.index, make_parser() if make_parser else None)
        reader = readers[event.index]
        parts = reader.finish(event) if isinstance(event, Finished) else reader.push(event)
        for part in parts:
            yield part


class _Reader:
    """Reads one choice."""

    def __init__(self, index: int, parser: TurnParser | None) -> None:
        self._index = index
        self._parser = parser
        self._waiting: tuple[ScoredToken, ...] = ()
        self._call_id = ""
        self._ends_with_call = False

    def push(self, delta: Delta) -> Iterator[TurnPart]:
        if self._parser is None:
            yield TurnPart(self._index, TextDelta(delta.text), delta.scored)
            return
        self._waiting += delta.scored
        yield from self._parts(self._parser.push(delta.text))

    def finish(self, end: Finished) -> Iterator[TurnPart | Finished]:
        if self._parser is not None:
            yield from self._parts(self._parser.finish())
        if self._waiting:
            yield TurnPart(self._index, TextDelta(""), self._take_scored())
        is_call = self._ends_with_call and end.reason == "stop"
        yield Finished(self._index, "tool_calls" if is_call else end.reason, end.stop)

    def _parts(self, events: Sequence[TurnEvent]) -> Iterator[TurnPart]:
        for event in events:
            if isinstance(event, CallStart):
                self._call_id = f"call_{secrets.token_hex(_ID_BYTES)}"
            elif isinstance(event, CallEnd):
                # A call that a stop string cut off is not one to be run.
                self._ends_with_call = event.complete
            call_id = self._call_id if isinstance(event, CallStart | CallArguments | CallEnd) else ""
            yield TurnPart(self._index, event, self._take_scored(), call_id)

    def _take_scored(self) -> tuple[ScoredToken, ...]:
        scored, self._waiting = self._waiting, ()
        return scored


@dataclass(slots=True)
class MadeCall:
    """One call of a turn: its arguments are JSON text in pieces."""

    id: str
    name: str
    fragments: list[str] = field(default_factory=list)

    @property
    def arguments(self) -> str:
        return "".join(self.fragments)


@dataclass(slots=True)
class Turn:
    """One choice as it came in, and how it ended: `stop` is the stop string that did it."""

    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: list[MadeCall] = field(default_factory=list)
    scored: list[ScoredToken] = field(default_factory=list)
    reason: str | None = None
    stop: str | None = None

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def reasoning(self) -> str:
        return "".join(self.thoughts)

    def add(self, part: TurnPart) -> None:
        self.scored += part.scored
        match part.event:
            case TextDelta(text):
                self.texts.append(text)
            case ReasoningDelta(text):
                self.thoughts.append(text)
            case CallStart(_, name):
                self.calls.append(MadeCall(part.call_id, name))
            case CallArguments(_, fragment):
                self.calls[-1].fragments.append(fragment)
            case CallEnd():
                return


async def collect_turns(parts: AsyncIterator[TurnPart | Finished], count: int) -> list[Turn]:
    """All `count` choices, complete."""
    turns = [Turn() for _ in range(count)]
    async for part in parts:
        if isinstance(part, Finished):
            turns[part.index].reason, turns[part.index].stop = part.reason, part.stop
        else:
            turns[part.index].add(part)
    return turns
