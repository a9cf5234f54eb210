"""Items as the messages of a chat, and which item each message was made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ...contract.errors import InvalidRequest
from ..schemas.chat import MAX_CALLS, MAX_MESSAGES
from .items import NormalItem, result_of, text_of
from .tools import flat_name

_SYSTEM = frozenset({"system", "developer"})


@dataclass(slots=True)
class Conversation:
    """Messages as chat takes them. `paths` names the field that each came from, `call_paths` the same of its calls."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    call_paths: list[list[str]] = field(default_factory=list)

    def add(self, path: str, message: dict[str, Any]) -> dict[str, Any]:
        self.messages.append(message)
        self.paths.append(path)
        self.call_paths.append([])
        return message


def read_conversation(
    instructions: str | None, context: Sequence[NormalItem], given: Sequence[NormalItem]
) -> Conversation:
    """The messages of `instructions`, the items of earlier responses, and the request's own.

    What stands first for the system is one message, and so is what a user says in a row: few templates take several.
    Reasoning, text and calls that follow one another are one turn of the assistant. Raises InvalidRequest for the
    result of a call that was never made, for more than a chat may hold, and for nothing at all.
    """
    reader = _Reader(instructions)
    for item in context:
        reader.read(item, "previous_response_id")
    for index, item in enumerate(given):
        reader.read(item, f"input[{index}]")
    conversation = reader.finish()
    if not conversation.messages:
        raise InvalidRequest("There is nothing to answer: 'input' is empty.", param="input")
    if len(conversation.messages) > MAX_MESSAGES:
        raise InvalidRequest(f"A conversation may have {MAX_MESSAGES} messages.", param="input")
    return conversation


class _Reader:
    """Puts items together one by one."""

    def __init__(self, instructions: str | None) -> None:
        self._conversation = Conversation()
        self._lead = [] if instructions is None else [instructions]
        self._lead_path = "instructions"
        self._leads = True
        self._calls: set[str] = set()
        self._thoughts = ""
        # The message that may go on, and its texts until it is closed: joining them one by one would be quadratic.
        self._open: dict[str, Any] = {}
        self._texts: list[str] = []

    def read(self, item: NormalItem, path: str) -> None:
        kind = item["type"]
        if self._leads and not (kind == "message" and item["role"] in _SYSTEM):
            self._flush_lead()
        if kind == "message":
            self._message(item, path)
        elif kind == "reasoning":
            self._close()
            self._thoughts = text_of(item["content"]) or text_of(item["summary"])
        elif kind == "function_call":
            self._call(item["call_id"], item, path)
        elif kind == "function_call_output":
            if item["call_id"] not in self._calls:
                raise InvalidRequest("There is no call of this id before its output.", param=f"{path}.call_id")
            output = item["output"]
            self._result(item["call_id"], output if isinstance(output, str) else text_of(output), path)
        elif kind == "mcp_call":
            self._call(item["id"], item, path)
            self._result(item["id"], result_of(item), path)

    def finish(self) -> Conversation:
        self._flush_lead()
        self._close()
        return self._conversation

    def _flush_lead(self) -> None:
        if self._leads and self._lead:
            self._conversation.add(self._lead_path, {"role": "system", "content": "\n\n".join(self._lead)})
        self._leads = False

    def _message(self, item: NormalItem, path: str) -> None:
        role, text = item["role"], text_of(item["content"])
        if role in _SYSTEM and self._leads:
            self._lead_path = self._lead_path if self._lead else path
            self._lead.append(text)
            return
        goes_on = self._open.get("role") == role and (role == "user" or "tool_calls" in self._open)
        if not goes_on:
            self._begin(role, path)
        self._texts.append(text)

    def _call(self, call_id: str, item: NormalItem, path: str) -> None:
        if self._open.get("role") != "assistant":
            self._begin("assistant", path)
        calls: list[dict[str, Any]] = self._open.setdefault("tool_calls", [])
        if len(calls) == MAX_CALLS:
            raise InvalidRequest(f"A turn may make {MAX_CALLS} calls.", param=path)
        function = {"name": flat_name(item.get("namespace"), item["name"]), "arguments": item["arguments"]}
        calls.append({"type": "function", "id": call_id, "function": function})
        self._conversation.call_paths[-1].append(path)
        self._calls.add(call_id)

    def _result(self, call_id: str, content: str, path: str) -> None:
        self._close()
        self._conversation.add(path, {"role": "tool", "tool_call_id": call_id, "content": content})

    def _begin(self, role: str, path: str) -> None:
        self._close()
        self._open = self._conversation.add(path, {"role": role, "content": None})
        if self._thoughts and role == "assistant":
            self._open["reasoning_content"] = self._thoughts
        self._thoughts = ""

    def _close(self) -> None:
        if self._texts:
            self._open["content"] = ("\n\n" if self._open["role"] == "user" else "").join(self._texts)
        self._open, self._texts = {}, []
