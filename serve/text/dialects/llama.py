"""Llama 3.1 to 3.3: the answer is the JSON of a call, or comes after <|python_tag|>."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from .family import Messages
from .form import Form
from .native import Native, takes_tools

TAG = "<|python_tag|>"


class Llama(Native):
    """The form of Meta's prompt format for custom functions, and several of them with `; ` between."""

    name: ClassVar[str] = "llama3"

    def matches(self, template: str, special: Mapping[str, int]) -> bool:
        return takes_tools(template) and "ipython" in template and '"parameters": ' in template

    def form(self, special: Mapping[str, int]) -> Form:
        return Form((TAG,), between="; ", key="parameters", bare=True)

    def adapt(self, messages: Messages) -> Messages:
        """One call a turn, with its result behind it: the template refuses turns of several."""
        adapted: Messages = []
        results = {str(m.get("tool_call_id")): m for m in messages if m.get("role") == "tool"}
        moved: set[int] = set()
        for message in messages:
            calls = message.get("tool_calls") or ()
            if len(calls) > 1:
                for call in calls:
                    adapted.append({**message, "tool_calls": [call]})
                    result = results.get(_id(call))
                    if result is not None and id(result) not in moved:
                        moved.add(id(result))
                        adapted.append(result)
            elif id(message) not in moved:
                adapted.append(message)
        return adapted


def _id(call: Mapping[str, Any]) -> str:
    return str(call.get("id"))
