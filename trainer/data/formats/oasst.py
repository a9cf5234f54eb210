"""Chats written into one text: `### Human:` and `### Assistant:`, as OASST1's Guanaco has them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..record import Record
from ..sample import Conversation
from .form import fields_of, text_at
from .turns import Turns

_TURN = re.compile(r"###[ \t]?(Human|Assistant|System|User):[ \t]?")
_ROLES = {"Human": "user", "User": "user", "Assistant": "assistant", "System": "system"}


class Oasst:
    """Text in which headings say who speaks."""

    name = "oasst"
    about = '{"text": "### Human: ... ### Assistant: ..."}'

    def recognises(self, value: Mapping[str, Any]) -> int:
        text = value.get("text")
        return 2 * (isinstance(text, str) and _TURN.match(text.lstrip()) is not None)

    def read(self, record: Record) -> Conversation:
        text = text_at(record, fields_of(record).get("text"), "text")
        pieces = _TURN.split(text)
        if pieces[0].strip() or len(pieces) < 3:
            raise record.error("the text does not begin with a heading", "begin with `### Human:`", field="text")
        turns = Turns(record)
        for role, said in zip(pieces[1::2], pieces[2::2], strict=True):
            turns.say(_ROLES[role], said.strip())
        return turns.conversation()
