"""ShareGPT's `conversations`, with roles as its many descendants spell them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..record import Record
from ..sample import Conversation
from .form import fields_of, text_at, tools_at
from .turns import Turns

NAMES = ("conversations", "conversation", "messages", "dialog", "dialogue")


class ShareGPT:
    """Chats of turns with `from` and `value`; roles human, gpt, system, observation, function_call and their like."""

    name = "sharegpt"
    about = '{"conversations": [{"from", "value"}], "system", "tools"}'

    def recognises(self, value: Mapping[str, Any]) -> int:
        return 2 * (conversation_of(value) is not None)

    def read(self, record: Record) -> Conversation:
        value = fields_of(record)
        turns = Turns(record, text_at(record, value.get("system"), "system"))
        field = conversation_of(value) or NAMES[0]
        turns.read(value.get(field), field)
        return turns.conversation(tools=tools_at(record, value.get("tools")))


def conversation_of(value: Mapping[str, Any]) -> str | None:
    """The name of the field that has the turns."""
    for name in NAMES:
        turns = value.get(name)
        if isinstance(turns, str) and name == NAMES[0] and turns.lstrip().startswith("["):
            return name
        if isinstance(turns, list) and turns and isinstance(turns[0], Mapping):
            keys = turns[0].keys()
            if {"from", "value"} <= keys or (name != "messages" and {"role", "content"} <= keys):
                return name
    return None
