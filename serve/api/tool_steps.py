"""What the server's own tools do within an answer: events beside the parts of a turn, and how replies write them.

The shape is one that clients of OpenAI's API pass over or keep: `tunechat` in a delta or a message, with `steps` whose
entries have an `index`. OpenAI's stream helper and LangChain put such entries together by it, so that what they make of
the chunks is what a whole reply has. Nothing of it is ever in `tool_calls`, which a client would run.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

from ...tools.records import ToolResult
from ..text.dialects import ReasoningDelta, TextDelta
from .events import Finished
from .turn_events import TurnPart

FIELD = "tunechat"
_GAP = "\n\n"


@dataclass(frozen=True, slots=True)
class ToolCalled:
    """Step number `step` of the answer, in the round `round` of calls, both from 0: the server runs this call now.

    `arguments` is JSON text, as the model wrote it.
    """

    step: int
    round: int
    id: str
    name: str
    arguments: str

    def as_json(self) -> dict[str, Any]:
        call = {"id": self.id, "name": self.name, "arguments": self.arguments}
        return {"steps": [{"index": self.step, "round": self.round, "tool_call": call}]}


@dataclass(frozen=True, slots=True)
class ToolReturned:
    """What came of step `step`."""

    step: int
    result: ToolResult

    def as_json(self) -> dict[str, Any]:
        told = {
            "status": str(self.result.status),
            "content": self.result.content,
            "seconds": round(self.result.seconds, 3),
            "truncated": self.result.truncated,
        }
        return {"steps": [{"index": self.step, "tool_result": told}]}


@dataclass(frozen=True, slots=True)
class ToolsSpent:
    """What the tools of the answer spent, once, right before its end.

    `limit` is what ended the calls: a name of the budget's, "context", "max_tokens", or None where the model did.
    """

    rounds: int
    calls: int
    output_bytes: int
    seconds: float
    limit: str | None = None

    def as_json(self) -> dict[str, Any]:
        spent = {
            "rounds": self.rounds,
            "calls": self.calls,
            "output_bytes": self.output_bytes,
            "seconds": round(self.seconds, 3),
            "limit": self.limit,
        }
        return {"spent": spent}


ToolEvent = ToolCalled | ToolReturned | ToolsSpent
AnswerPart = TurnPart | ToolEvent | Finished


async def with_gaps(parts: AsyncIterator[AnswerPart]) -> AsyncIterator[AnswerPart]:
    """The parts, with an empty line where text or thoughts go on after a step: a message has one `content` only."""
    written: set[type] = set()
    due: set[type] = set()
    async for part in parts:
        if isinstance(part, ToolCalled):
            due = set(written)
        elif isinstance(part, TurnPart) and isinstance(part.event, TextDelta | ReasoningDelta) and part.event.text:
            kind = type(part.event)
            if kind in due:
                part = replace(part, event=kind(_GAP + part.event.text))
                due.discard(kind)
            written.add(kind)
        yield part


async def without_tools(
    parts: AsyncIterator[AnswerPart], events: list[ToolEvent]
) -> AsyncIterator[TurnPart | Finished]:
    """The parts of turns alone; what tools do goes into `events`."""
    async for part in parts:
        if isinstance(part, TurnPart | Finished):
            yield part
        else:
            events.append(part)


def merged(events: list[ToolEvent]) -> dict[str, Any]:
    """All of an answer's events as its message has them: what a client makes of the chunks."""
    steps: dict[int, dict[str, Any]] = {}
    told: dict[str, Any] = {"steps": []}
    for event in events:
        for name, value in event.as_json().items():
            if name != "steps":
                told[name] = value
                continue
            for entry in value:
                steps.setdefault(entry["index"], {}).update(entry)
    return told | {"steps": [steps[index] for index in sorted(steps)]}
