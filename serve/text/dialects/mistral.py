"""Mistral's models: [TOOL_CALLS] and a list of calls, or, since version 11 of their tokenizers, a name and [ARGS]."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from .family import Messages
from .form import Form
from .native import Native

_ID = re.compile(r"[a-zA-Z0-9]{9}")


class Mistral(Native):
    """The form of mistral-common. The special token opens the list, and the end of the turn closes it."""

    name: ClassVar[str] = "mistral"

    def matches(self, template: str, special: Mapping[str, int]) -> bool:
        return "[TOOL_CALLS]" in template and "[ARGS]" not in template

    def form(self, special: Mapping[str, int]) -> Form:
        return Form(("[TOOL_CALLS]",), listed=True)

    def adapt(self, messages: Messages) -> Messages:
        """Ids of calls with nine letters and digits: the template refuses others."""
        adapted: Messages = []
        for message in messages:
            copy = dict(message)
            if "tool_call_id" in message:
                copy["tool_call_id"] = nine(message["tool_call_id"])
            if message.get("tool_calls"):
                copy["tool_calls"] = [{**call, "id": nine(call.get("id"))} for call in message["tool_calls"]]
            adapted.append(copy)
        return adapted


class MistralNamed(Mistral):
    """The newer form: every call has the special token in front, and another between its name and arguments."""

    name: ClassVar[str] = "mistral11"

    def matches(self, template: str, special: Mapping[str, int]) -> bool:
        return "[TOOL_CALLS]" in template and "[ARGS]" in template

    def form(self, special: Mapping[str, int]) -> Form:
        return Form(("[TOOL_CALLS]",), infix="[ARGS]")


def nine(id_: Any) -> str:
    """The id itself where it has nine letters and digits, else nine hexadecimal digits that depend on it."""
    text = str(id_)
    return text if _ID.fullmatch(text) else hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:9]
