"""The items of an answer as they come, and the events that tell of them: whole replies and streams are both this."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ....tools.records import Status
from ...text.dialects import CallArguments, CallEnd, CallStart, ReasoningDelta, TextDelta
from ..events import Finished
from ..ports import Text
from ..replies import chat_logprobs
from ..tool_steps import AnswerPart, ToolCalled, ToolReturned, ToolsSpent
from ..turn_events import TurnPart
from .items import NormalItem, call_error, call_item, message_item, output_text, reasoning_item, server_call_item

OutputEvent = dict[str, Any]


class Output:
    """Takes the parts of one choice. `items` is what there is of the answer, `reason` how it ended, "" until it did.

    `spent` is what tools of the server's took, None without any. `spaces` maps the names of functions in namespaces to
    namespace and name. With `scores`, text has its log-probabilities.
    """

    def __init__(self, text: Text, spaces: Mapping[str, tuple[str, str]], *, scores: bool = False) -> None:
        self.items: list[NormalItem] = []
        self.reason = ""
        self.spent: dict[str, Any] | None = None
        self._text = text
        self._spaces = spaces
        self._scores = scores
        # The kind of the last item while it is open.
        self._open = ""
        # Its text, in pieces until it is asked for: putting them together one by one would take quadratic time.
        self._pieces: list[str] = []
        # Places of the calls that the server runs, which may be several at once.
        self._steps: dict[int, int] = {}

    @property
    def reasoning(self) -> str:
        """All that was thought."""
        return "".join(part["text"] for item in self.items if item["type"] == "reasoning" for part in item["content"])

    def push(self, part: AnswerPart) -> Iterator[OutputEvent]:
        """The events that `part` makes, without sequence numbers."""
        match part:
            case Finished():
                yield from self._finish(part.reason)
            case ToolCalled():
                yield from self._begin_step(part)
            case ToolReturned():
                yield from self._end_step(part)
            case ToolsSpent():
                self.spent = part.as_json()
            case TurnPart():
                yield from self._turn_part(part)

    def interrupt(self) -> None:
        """What is still open stays as it is, and is told to be incomplete."""
        self._settle()
        for item in self.items:
            if item["status"] == "in_progress":
                item["status"] = "incomplete"

    def _turn_part(self, part: TurnPart) -> Iterator[OutputEvent]:
        match part.event:
            case TextDelta(text):
                scored = self._scored(part)
                if text or scored:
                    yield from self._add_text(text, scored)
            case ReasoningDelta(text):
                yield from self._add_thought(text)
            case CallStart(_, name):
                yield from self._begin_call(part.call_id, name)
            case CallArguments(_, fragment):
                self._pieces.append(fragment)
                yield self._event("function_call_arguments.delta", delta=fragment)
            case CallEnd(_, complete):
                yield from self._close(complete)

    @property
    def _last(self) -> NormalItem:
        return self.items[-1]

    def _finish(self, reason: str) -> Iterator[OutputEvent]:
        yield from self._close(reason != "length")
        if not self.items:
            # Clients expect something even of a model that says nothing.
            yield from self._add_text("", [])
            yield from self._close(reason != "length")
        self.reason = reason

    def _add_text(self, text: str, scored: list[Any]) -> Iterator[OutputEvent]:
        if self._open != "message":
            yield from self._close()
            part = output_text("")
            yield from self._begin(message_item("assistant", [part], "in_progress"), content=[])
            yield self._event("content_part.added", content_index=0, part=dict(part))
        self._pieces.append(text)
        self._last["content"][0]["logprobs"] += scored
        if text or scored:
            yield self._event("output_text.delta", content_index=0, delta=text, logprobs=scored)

    def _add_thought(self, text: str) -> Iterator[OutputEvent]:
        if self._open != "reasoning":
            yield from self._close()
            yield from self._begin(reasoning_item([""], status="in_progress"), content=[])
            part = {"type": "reasoning_text", "text": ""}
            yield self._event("content_part.added", content_index=0, part=part)
        self._pieces.append(text)
        yield self._event("reasoning_text.delta", content_index=0, delta=text)

    def _begin_call(self, call_id: str, name: str) -> Iterator[OutputEvent]:
        yield from self._close()
        space: dict[str, str] = {}
        if name in self._spaces:
            namespace, name = self._spaces[name]
            space = {"namespace": namespace}
        yield from self._begin(call_item(call_id, name, "", "in_progress", **space))

    def _begin_step(self, step: ToolCalled) -> Iterator[OutputEvent]:
        yield from self._close()
        self._steps[step.step] = len(self.items)
        yield from self._begin(server_call_item(step.name, "", "in_progress"))
        # It stays open, and others may begin before it ends.
        self._open = ""
        self._last["arguments"] = step.arguments
        yield self._event("mcp_call.in_progress")
        yield self._event("mcp_call_arguments.delta", delta=step.arguments)
        yield self._event("mcp_call_arguments.done", arguments=step.arguments)

    def _end_step(self, step: ToolReturned) -> Iterator[OutputEvent]:
        index, result = self._steps[step.step], step.result
        item = self.items[index]
        if result.status is Status.OK:
            item["status"], item["output"] = "completed", result.content
        else:
            item["status"], item["error"] = "failed", call_error(result.content)
        yield self._event(f"mcp_call.{item['status']}", index)
        yield self._item_event("output_item.done", dict(item), index)

    def _begin(self, item: NormalItem, **shown: Any) -> Iterator[OutputEvent]:
        """Opens `item`, of which the event shows `shown` in place of what it will have."""
        self.items.append(item)
        self._open = item["type"]
        yield self._item_event("output_item.added", item | shown)

    def _close(self, complete: bool = True) -> Iterator[OutputEvent]:
        """Ends the open item, if there is one."""
        self._settle()
        kind, self._open = self._open, ""
        if not kind:
            return
        item = self._last
        item["status"] = "completed" if complete else "incomplete"
        if kind == "function_call":
            yield self._event("function_call_arguments.done", name=item["name"], arguments=item["arguments"])
        else:
            part = dict(item["content"][0])
            if kind == "message":
                yield self._event(
                    "output_text.done", content_index=0, text=part["text"], logprobs=list(part["logprobs"])
                )
            else:
                yield self._event("reasoning_text.done", content_index=0, text=part["text"])
            yield self._event("content_part.done", content_index=0, part=part)
        yield self._item_event("output_item.done", dict(item))

    def _settle(self) -> None:
        """Gives the open item the text that there is of it."""
        text, self._pieces = "".join(self._pieces), []
        if self._open == "function_call":
            self._last["arguments"] += text
        elif self._open:
            self._last["content"][0]["text"] += text

    def _event(self, kind: str, index: int | None = None, **fields: Any) -> OutputEvent:
        index = len(self.items) - 1 if index is None else index
        return {
            "type": f"response.{kind}",
            "item_id": self.items[index]["id"],
            "output_index": index,
            **fields,
        }

    def _item_event(self, kind: str, item: NormalItem, index: int | None = None) -> OutputEvent:
        index = len(self.items) - 1 if index is None else index
        return {"type": f"response.{kind}", "output_index": index, "item": item}

    def _scored(self, part: TurnPart) -> list[Any]:
        if not self._scores or not part.scored:
            return []
        content: list[Any] = chat_logprobs(part.scored, self._text)["content"]
        return content
