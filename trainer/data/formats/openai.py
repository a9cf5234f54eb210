"""OpenAI's `messages`, with tools, calls, results and weights; also as it was, with `functions`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..record import Record
from ..sample import Conversation
from .form import fields_of, tools_at
from .turns import Turns


class OpenAI:
    """Chats as OpenAI's fine-tuning takes them, and TRL's."""

    name = "openai"
    about = '{"messages": [{"role", "content"}], "tools": [...]}'

    def recognises(self, value: Mapping[str, Any]) -> int:
        messages = value.get("messages")
        if isinstance(messages, str):
            return 2 * messages.lstrip().startswith("[")
        return 2 * (isinstance(messages, list) and bool(messages) and _has_role(messages[0]))

    def read(self, record: Record) -> Conversation:
        value = fields_of(record)
        turns = Turns(record)
        turns.read(value.get("messages"), "messages")
        parallel = value.get("parallel_tool_calls", True)
        if not isinstance(parallel, bool):
            raise record.error("this must be true or false", "write true or false", field="parallel_tool_calls")
        field = "functions" if value.get("tools") is None and value.get("functions") else "tools"
        return turns.conversation(tools=tools_at(record, value.get(field), field), parallel_tool_calls=parallel)


def _has_role(message: Any) -> bool:
    return isinstance(message, Mapping) and "role" in message
