"""Phi-4-mini: a list of calls between special tokens, or behind the word functools."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from .family import Message, Messages, Traits
from .form import Form
from .history import as_plain_turns, in_system
from .native import Native
from .tool import Tool, ToolChoice

OPENER, CLOSER, WORD = "<|tool_call|>", "<|/tool_call|>", "functools["


class Phi(Native):
    """The form of Phi-4-mini's model card: the template takes the tools from a field of the system message."""

    name: ClassVar[str] = "phi4-mini"

    def matches(self, template: str, special: Mapping[str, int]) -> bool:
        return "<|tool|>" in template and "message['tools']" in template.replace('"', "'")

    def form(self, special: Mapping[str, int]) -> Form:
        if OPENER in special:
            return Form((OPENER, WORD), CLOSER, listed=True)
        return Form((WORD,), listed=True)

    def prepare(
        self, messages: Sequence[Message], tools: Sequence[Tool], choice: ToolChoice, traits: Traits
    ) -> tuple[Messages, list[dict[str, Any]] | None]:
        if not traits.native:
            return super().prepare(messages, tools, choice, traits)
        turns = as_plain_turns(messages, traits.form, ("", ""))
        if tools and choice.mode != "none":
            if not turns or turns[0].get("role") != "system":
                turns = in_system(turns, "You are a helpful assistant with some tools.", system_role=True)
            told = json.dumps([tool.definition()["function"] for tool in tools], ensure_ascii=False)
            turns[0] = {**turns[0], "tools": told}
        return turns, None
