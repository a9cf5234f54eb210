"""What one turn of a model consists of, piece by piece: text, reasoning, tool calls."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More of the text that is shown."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More of what the model thinks before it answers."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStart:
    """Call number `index` of the turn, from 0, begins; `name` is whole."""

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """More of the arguments of call `index`: all fragments together are the JSON text of one object."""

    index: int
    fragment: str


@dataclass(frozen=True, slots=True)
class CallEnd:
    """Call `index` ends. Unless it is `complete`, the text ended, or went astray, in the middle of it."""

    index: int
    complete: bool = True


TurnEvent = TextDelta | ReasoningDelta | CallStart | CallArguments | CallEnd
