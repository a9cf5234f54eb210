"""Alpaca's instruction, input and output, with a history of earlier turns where there is one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..record import Record
from ..sample import Conversation
from .form import fields_of, list_at, text_at, tools_at
from .turns import Turns

_ANSWERS = ("output", "response", "answer", "completion")


class Alpaca:
    """One instruction, what it works on, and the answer."""

    name = "alpaca"
    about = '{"instruction", "input", "output", "system", "history": [[question, answer]]}'

    def recognises(self, value: Mapping[str, Any]) -> int:
        return 2 * ("instruction" in value and any(name in value for name in _ANSWERS))

    def read(self, record: Record) -> Conversation:
        value = fields_of(record)
        turns = Turns(record, text_at(record, value.get("system"), "system"))
        add_history(turns, value.get("history"))
        turns.say("user", question_of(record, value))
        answer = next((name for name in _ANSWERS if name in value), _ANSWERS[0])
        turns.say("assistant", text_at(record, value.get(answer), answer))
        return turns.conversation(tools=tools_at(record, value.get("tools")))


def question_of(record: Record, value: Mapping[str, Any]) -> str:
    """The instruction, and on the next line what it works on."""
    parts = (text_at(record, value.get(name), name) for name in ("instruction", "input"))
    return "\n".join(part for part in parts if part)


def add_history(turns: Turns, history: Any) -> None:
    """Earlier turns, pairs of question and answer. Raises InvalidData for what are no pairs."""
    if history is None or history == "":
        return
    for index, pair in enumerate(list_at(turns.record, history, "history")):
        if not isinstance(pair, list) or len(pair) != 2:
            mend = "write [question, answer]"
            raise turns.record.error("a turn of the history must be a pair", mend, field=f"history[{index}]")
        turns.say("user", text_at(turns.record, pair[0], f"history[{index}][0]"))
        turns.say("assistant", text_at(turns.record, pair[1], f"history[{index}][1]"))
