"""What becomes of a turn that calls the server's tools: what the client sees of it, and what the model reads next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...tools.records import ToolResult
from ..text.dialects import CallArguments, CallEnd, CallStart
from .schemas.chat import CalledFunction, ChatRequest, Message, readable
from .schemas.chat import ToolCall as WrittenCall
from .turn_events import Turn, TurnPart
from .turns import read_choice


class ClientParts:
    """What a client sees of one turn: all but the calls that the server runs, with its own calls numbered from 0."""

    def __init__(self, hidden: frozenset[str]) -> None:
        self._hidden = hidden
        self._is_hidden = False
        self._index = -1

    def of(self, part: TurnPart) -> TurnPart | None:
        event = part.event
        if not isinstance(event, CallStart | CallArguments | CallEnd):
            return part
        if isinstance(event, CallStart):
            self._is_hidden = event.name in self._hidden
            self._index += not self._is_hidden
        return None if self._is_hidden else replace(part, event=replace(event, index=self._index))


def later_choice(body: ChatRequest, withdrawn: frozenset[str]) -> Any:
    """The `tool_choice` of every turn but the first: a call that had to be made has been made by then.

    A model that must call again in every turn would never answer. `withdrawn` are tools that it may not call any more.
    """
    value = body.tool_choice
    names = [tool["function"]["name"] for tool in body.tools or ()]
    kept = read_choice(value).names if isinstance(value, Mapping) and value.get("type") == "allowed_tools" else None
    left = [name for name in names if name not in withdrawn and (kept is None or name in kept)]
    if not left:
        return "none"
    if len(left) == len(names):
        return "auto"
    tools = [{"type": "function", "function": {"name": name}} for name in left]
    return {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": tools}}


def history(turn: Turn, results: Sequence[ToolResult]) -> list[Message]:
    """A turn and the results of its calls, as the model reads them next. None of it is checked as a client's is."""
    calls = [
        WrittenCall.model_construct(
            id=call.id,
            type="function",
            function=CalledFunction.model_construct(name=call.name, arguments=readable(call.arguments)),
        )
        for call in turn.calls
    ]
    answer = Message.model_construct(
        role="assistant", content=turn.text or None, reasoning_content=turn.reasoning or None, tool_calls=calls
    )
    told = [Message.model_construct(role="tool", tool_call_id=one.id, content=one.content) for one in results]
    return [answer, *told]
