"""Any model: tools are told in the system message, calls are written the way that most open models have seen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ..markup import Markup, Own
from .family import Message, Messages, Traits
from .form import Form
from .history import as_plain_turns, in_system
from .tool import Call, Tool, ToolChoice

TAGGED = Form(("<tool_call>",), "</tool_call>", lead="\n", tail="\n", between="\n", gap="\n", brief=True)
RESULT = ("<tool_response>\n", "\n</tool_response>")

_EXAMPLE = Call("function_name", '{"argument": "value"}')


class Generic:
    """Models whose template knows no tools, or writes them in a way that is not known here."""

    name: ClassVar[str] = "generic"

    def matches(self, template: str, special: Mapping[str, int]) -> bool:
        return True

    def form(self, special: Mapping[str, int]) -> Form:
        return TAGGED

    def prepare(
        self, messages: Sequence[Message], tools: Sequence[Tool], choice: ToolChoice, traits: Traits
    ) -> tuple[Messages, list[dict[str, Any]] | None]:
        turns = as_plain_turns(messages, traits.form, RESULT)
        if tools and choice.mode != "none":
            turns = in_system(turns, instructions(tools, choice, traits.form), system_role=traits.system_role)
        return turns, None


def instructions(tools: Sequence[Tool], choice: ToolChoice, form: Form) -> Markup:
    """What a model is told of the tools and of how it calls them."""
    pieces: list[str] = [Own("You can call these functions:\n")]
    for tool in tools:
        pieces += [json.dumps(tool.definition()["function"], ensure_ascii=False), Own("\n")]
    pieces.append(Own(f"\nA call is written like this:\n{form.render('', [_EXAMPLE])}\n\n"))
    pieces.append(Own(_advice(choice)))
    return Markup(*pieces)


def _advice(choice: ToolChoice) -> str:
    if choice.mode == "required" and choice.names is not None and len(choice.names) == 1:
        return f"Now call the function {next(iter(choice.names))}."
    if choice.mode == "required":
        return "Now call the function that helps with the request."
    return "Call a function only if it helps with the request. Otherwise answer in plain text."
