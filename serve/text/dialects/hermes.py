"""Hermes, Qwen 2.5 and 3, and the many models trained on their form: JSON between <tool_call> and </tool_call>."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from .form import Form
from .generic import TAGGED
from .native import Native, takes_tools

# Others put XML or lists of keys between the same tags.
_OTHERS = ("<function=", "<arg_key>")


# Its models were trained to end their calls, and a long text must not be cut short.
_FORM = replace(TAGGED, brief=False)


class Hermes(Native):
    """The form of https://github.com/NousResearch/Hermes-Function-Calling."""

    name: ClassVar[str] = "hermes"

    def form(self, special: Mapping[str, int]) -> Form:
        return _FORM

    def matches(self, template: str, special: Mapping[str, int]) -> bool:
        return takes_tools(template) and "<tool_call>" in template and not any(word in template for word in _OTHERS)
