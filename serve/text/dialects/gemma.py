"""Gemma 2 and 3: no template for tools, but instructions under which the whole answer is the JSON of a call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from .family import Message, Messages, Traits
from .form import Form
from .generic import RESULT, instructions
from .history import as_plain_turns, in_system
from .native import Native, takes_tools
from .tool import Tool, ToolChoice

FENCES = ("```tool_code", "```tool_call")


class Gemma(Native):
    """The form of Google's guide to function calling with Gemma: JSON alone, in a fence behind text; a line each."""

    name: ClassVar[str] = "gemma"

    def matches(self, template: str, special: Mapping[str, int]) -> bool:
        return "<start_of_turn>" in template and not takes_tools(template)

    def form(self, special: Mapping[str, int]) -> Form:
        return Form(FENCES, "```", lead="\n", tail="\n", between="\n", gap="\n", key="parameters", bare=True)

    def prepare(
        self, messages: Sequence[Message], tools: Sequence[Tool], choice: ToolChoice, traits: Traits
    ) -> tuple[Messages, list[dict[str, Any]] | None]:
        turns = as_plain_turns(messages, traits.form, RESULT)
        if tools and choice.mode != "none":
            turns = in_system(turns, instructions(tools, choice, traits.form), system_role=traits.system_role)
        return turns, None
