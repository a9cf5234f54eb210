"""A prompt and its completion, each as text or as messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..record import Record
from ..sample import Conversation
from .form import fields_of, text_at, tools_at
from .turns import Turns

_ANSWERS = ("completion", "response")


class PromptCompletion:
    """What older fine-tuning APIs and TRL take."""

    name = "prompt-completion"
    about = '{"prompt", "completion"}, text or messages'

    def recognises(self, value: Mapping[str, Any]) -> int:
        return 2 * ("prompt" in value and any(name in value for name in _ANSWERS))

    def read(self, record: Record) -> Conversation:
        value = fields_of(record)
        turns = Turns(record, text_at(record, value.get("system"), "system"))
        add(turns, "user", value.get("prompt"), "prompt")
        name = next((name for name in _ANSWERS if name in value), _ANSWERS[0])
        add(turns, "assistant", value.get(name), name)
        return turns.conversation(tools=tools_at(record, value.get("tools")))


def add(turns: Turns, role: str, value: Any, field: str) -> None:
    """Text as one message of `role`, or messages as they are: a list, or one of them."""
    if isinstance(value, list):
        turns.read(value, field)
    elif isinstance(value, Mapping):
        turns.read([value], field)
    else:
        turns.say(role, text_at(turns.record, value, field))
