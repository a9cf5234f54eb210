"""InternLM2 and 2.5: plugins, in turns and blocks that special tokens mark."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ..markup import Markup, Own
from .family import Message, Messages, Traits
from .form import Form
from .history import as_plain_turns
from .native import Native
from .tool import Tool, ToolChoice

START, PLUGIN, END = "<|action_start|>", "<|plugin|>", "<|action_end|>"


class InternLM(Native):
    """The form of InternLM's `chat_format.md`: tools in a system turn named <|plugin|>, results in one of the
    environment. Its templates know nothing of it, but write any role."""

    name: ClassVar[str] = "internlm2"

    def matches(self, template: str, special: Mapping[str, int]) -> bool:
        return START in special and PLUGIN in special

    def form(self, special: Mapping[str, int]) -> Form:
        return Form((START + PLUGIN,), END, lead="\n", key="parameters")

    def prepare(
        self, messages: Sequence[Message], tools: Sequence[Tool], choice: ToolChoice, traits: Traits
    ) -> tuple[Messages, list[dict[str, Any]] | None]:
        turns: Messages = []
        for message in messages:
            if message.get("role") in ("tool", "function"):
                turns.append({"role": _named("environment"), "content": message.get("content") or ""})
            else:
                turns += as_plain_turns([message], traits.form, ("", ""))
        if tools and choice.mode != "none":
            told = json.dumps([tool.definition()["function"] for tool in tools], ensure_ascii=False)
            behind = 1 if turns and turns[0]["role"] == "system" else 0
            turns.insert(behind, {"role": _named("system"), "content": told})
        return turns, None


def _named(role: str) -> Markup:
    return Markup(Own(f"{role} name={PLUGIN}"))
