"""Hermes, Qwen 2.5 and 3, and the many models trained on their form: JSON between <tool_call> and </tool_call>."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from .native import Native, takes_tools

# Others put XML or lists of keys between the same tags.
_OTHERS = ("<function=", "<arg_key>")


class Hermes(Native):
    """The form of https://github.com/NousResearch/Hermes-Function-Calling."""

    name: ClassVar[str] = "hermes"

    def matches(self, template: str, special: Mapping[str, int]) -> bool:
        return takes_tools(template) and "<tool_call>" in template and not any(word in template for word in _OTHERS)
