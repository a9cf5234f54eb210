"""Messages put together turn by turn, with the ids that tie results to calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..json_text import BadJson, read_json
from ..record import Record
from ..sample import Conversation
from .form import arguments_at, list_at, object_at, text_at, weight_at

ROLES: dict[str, str] = {
    **dict.fromkeys(("system", "system_prompt", "meta_instruction"), "system"),
    "developer": "developer",
    **dict.fromkeys(("user", "human", "prompter", "question", "instruction"), "user"),
    **dict.fromkeys(
        ("assistant", "gpt", "chatgpt", "bing", "bard", "claude", "model", "bot", "ai", "moss"), "assistant"
    ),
    **dict.fromkeys(("tool", "observation", "function", "function_response", "tool_response", "ipython"), "tool"),
    **dict.fromkeys(("environment", "tool_result", "function_result"), "tool"),
    **dict.fromkeys(("function_call", "tool_call", "function-call"), "call"),
}
_KEPT = ("name", "reasoning_content", "reasoning", "thinking", "refusal")
Message = dict[str, Any]


class Turns:
    """The messages of one record so far."""

    def __init__(self, record: Record, system: str = "") -> None:
        self.record = record
        self.messages: list[Message] = []
        self._open: list[tuple[str, str]] = []
        self._calls = 0
        if system:
            self.say("system", system)

    def say(self, role: str, content: Any, **more: Any) -> None:
        """A message of text; what is None is left out."""
        fields = {"role": role, "content": content, **more}
        self.messages.append({name: value for name, value in fields.items() if value is not None})

    def call(self, calls: Sequence[tuple[str, str, str | None]], content: str | None = None, **more: Any) -> None:
        """A message of the assistant that makes calls: names, arguments as JSON text, ids where there are some."""
        made = []
        for name, arguments, given in calls:
            self._calls += 1
            id_ = given or f"call_{self._calls}"
            self._open.append((id_, name))
            made.append({"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}})
        self.say("assistant", content or None, tool_calls=made, **more)

    def result(self, content: Any, *, name: str | None = None, id_: str | None = None, **more: Any) -> None:
        """What a tool gave: for the call of that id, else the first open one of that name, else the first."""
        if id_ is None:
            named = [call for call in self._open if call[1] == name]
            id_ = next((call[0] for call in named or self._open), None)
        self._open = [call for call in self._open if call[0] != id_]
        self.say("tool", content, tool_call_id=id_, name=name, **more)

    def conversation(self, **more: Any) -> Conversation:
        """All of it as a sample. Raises InvalidData where there is nothing."""
        if not self.messages:
            raise self.record.error("there are no messages", "write some, or leave the record out", kind="empty")
        return Conversation(tuple(self.messages), self.record.place, **more)

    def read(self, values: Any, field: str) -> None:
        """Messages from a list, in OpenAI's words or in those of ShareGPT. Raises InvalidData."""
        for index, value in enumerate(list_at(self.record, values, field)):
            path = f"{field}[{index}]"
            self._read_one(object_at(self.record, value, path), path)

    def _read_one(self, value: Mapping[str, Any], path: str) -> None:
        speaker = "role" if "role" in value else "from"
        spelled = value.get(speaker)
        role = ROLES.get(spelled.strip().lower()) if isinstance(spelled, str) else None
        if role is None:
            known = "system, user, assistant and tool are known, and human, gpt, observation and function_call"
            raise self.record.error(
                f"unknown role {str(spelled)[:40]!r}", known, field=f"{path}.{speaker}", kind="role"
            )
        body = next((name for name in ("content", "value", "text") if name in value), "content")
        content = self._content(value.get(body), f"{path}.{body}")
        more = {name: text_at(self.record, value[name], f"{path}.{name}") for name in _KEPT if value.get(name)}
        weight = weight_at(self.record, value, path)
        if role == "call":
            self.call(self._written_calls(content, f"{path}.{body}"), weight=weight)
        elif role == "assistant":
            calls = self._calls_of(value, path)
            if calls:
                self.call(calls, content, weight=weight, **more)
            else:
                self.say(role, content if content is not None else "", weight=weight, **more)
        elif role == "tool":
            id_ = value.get("tool_call_id")
            given = text_at(self.record, id_, f"{path}.tool_call_id") if id_ is not None else None
            self.result(content if content is not None else "", id_=given, **more)
        else:
            self.say(role, content if content is not None else "", **more)

    def _content(self, value: Any, path: str) -> Any:
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, list):
            for index, part in enumerate(value):
                is_text = isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)
                if not is_text:
                    mend = 'write {"type": "text", "text": "..."}, or leave the record out'
                    raise self.record.error("only parts of text are trained", mend, field=f"{path}[{index}]")
            return value
        return text_at(self.record, value, path)

    def _calls_of(self, value: Mapping[str, Any], path: str) -> list[tuple[str, str, str | None]]:
        if value.get("function_call") is not None:
            return [self._call(value["function_call"], None, f"{path}.function_call")]
        calls = []
        for index, item in enumerate(list_at(self.record, value.get("tool_calls") or [], f"{path}.tool_calls")):
            where = f"{path}.tool_calls[{index}]"
            call = object_at(self.record, item, where)
            id_ = call.get("id")
            inner = call.get("function", call)
            calls.append(self._call(inner, id_ if isinstance(id_, str) and id_ else None, f"{where}.function"))
        return calls

    def _call(self, value: Any, id_: str | None, path: str) -> tuple[str, str, str | None]:
        function = object_at(self.record, value, path)
        name = function.get("name")
        if not isinstance(name, str) or not name:
            raise self.record.error("a call must name a tool", "write its name", field=f"{path}.name")
        arguments = function.get("arguments", function.get("parameters"))
        return name, arguments_at(self.record, arguments, f"{path}.arguments"), id_

    def _written_calls(self, content: Any, path: str) -> list[tuple[str, str, str | None]]:
        """Calls that stand as JSON in the text of a turn, one or a list."""
        mend = 'write {"name": "...", "arguments": {...}}'
        try:
            value = read_json(content) if isinstance(content, str) else None
        except BadJson as error:
            raise self.record.error(str(error), mend, field=path, kind="json") from error
        items: list[Any] = value if isinstance(value, list) else [value]
        if not items or not all(isinstance(item, dict) for item in items):
            raise self.record.error("this is no call", mend, field=path)
        return [self._call(item.get("function", item), None, path) for item in items]
