"""XTuner's own `conversation` lists: system, input and output a turn; MOSS-002's human and assistant likewise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..record import Record
from ..sample import PlainText, Sample
from .form import fields_of, list_at, object_at, text_at
from .turns import Turns


class XTuner:
    """Turns of input and output. Where all inputs are empty, the outputs are plain text, as there."""

    name = "xtuner"
    about = '{"conversation": [{"system", "input", "output", "output_with_loss"}]}'

    def recognises(self, value: Mapping[str, Any]) -> int:
        turns = value.get("conversation")
        first = turns[0] if isinstance(turns, list) and turns else None
        return 2 * (isinstance(first, Mapping) and ("output" in first or {"human", "assistant"} <= first.keys()))

    def read(self, record: Record) -> Sample:
        field = "conversation"
        items = list_at(record, fields_of(record).get(field), field)
        turns, is_plain = Turns(record), True
        for index, item in enumerate(items):
            path = f"{field}[{index}]"
            turn = object_at(record, item, path)
            asked, said = ("human", "assistant") if "human" in turn else ("input", "output")
            system = text_at(record, turn.get("system"), f"{path}.system")
            question = text_at(record, turn.get(asked), f"{path}.{asked}")
            answer = text_at(record, turn.get(said), f"{path}.{said}")
            is_plain = is_plain and not system and not question
            if system:
                turns.say("system", system)
            if question:
                turns.say("user", question)
            turns.say("assistant", answer, weight=None if turn.get("output_with_loss", True) else 0)
        if is_plain and turns.messages:
            return PlainText("".join(message["content"] for message in turns.messages), record.place)
        return turns.conversation()
