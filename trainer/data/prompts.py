"""Conversations as the server would ask them: the same messages, prepared and rendered by the same code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...serve.contract.errors import InvalidRequest
from ...serve.text.dialects import Dialect, Tool
from ...serve.text.model_text import ModelText
from ...serve.text.rendered import Rendered

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
ROLES |= {"function": "tool"}
REASONING = ("reasoning_content", "reasoning", "thinking")

# More of a prompt's end than any marker that it may end in.
_PROMPT_END = 32


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model reads before an answer: `end` is the end of its text."""

    rendered: Rendered
    tokens: list[int]
    end: str


@dataclass(frozen=True, slots=True, eq=False)
class Prompts:
    """Renders the messages of one model. `template_kwargs` are those that requests will send, none as a rule."""

    text: ModelText
    dialect: Dialect
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def prompt(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Tool]) -> Prompt:
        """The prompt of the answer to `messages`. Raises InvalidRequest where the server would refuse them."""
        rendered = self._rendered(messages, tools, add_generation_prompt=True)
        tokens = self.text.encode_rendered(rendered)
        return Prompt(rendered, tokens, self.text.decode(tokens[-_PROMPT_END:], skip_special=False))

    def whole(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Tool]) -> Rendered:
        """The messages and nothing behind them. Raises InvalidRequest as `prompt` does."""
        return self._rendered(messages, tools, add_generation_prompt=False)

    def _rendered(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Tool], *, add_generation_prompt: bool
    ) -> Rendered:
        told: list[dict[str, Any]] | None = None
        if tools or any(message["role"] == "tool" or message.get("tool_calls") for message in messages):
            messages, told = self.dialect.prepare(messages, tools)
        return self.text.rendered(
            messages,
            tools=told,
            add_generation_prompt=add_generation_prompt,
            template_kwargs=self.template_kwargs,
        )


def for_template(message: Mapping[str, Any], path: str) -> dict[str, Any]:
    """A message of a sample as the server hands it to templates: what it does not read is left out.

    Raises InvalidRequest, with the field behind `path`, for what the server would not take.
    """
    role = ROLES.get(str(message.get("role")))
    if role is None:
        known = ", ".join(sorted(ROLES))
        raise InvalidRequest(f"The role {message.get('role')!r} is none of {known}.", param=f"{path}.role")
    made: dict[str, Any] = {"role": role, "content": _content(message.get("content"), f"{path}.content")}
    for name in ("name", "tool_call_id"):
        if message.get(name) is not None:
            made[name] = _string(message[name], f"{path}.{name}")
    reasoning = next((message[name] for name in REASONING if message.get(name) is not None), None)
    if role == "assistant" and reasoning is not None:
        made["reasoning_content"] = _string(reasoning, f"{path}.reasoning_content")
    if role == "assistant" and message.get("tool_calls"):
        made["tool_calls"] = _calls(message["tool_calls"], f"{path}.tool_calls")
    return made


def _content(value: Any, path: str) -> str | list[dict[str, str]]:
    if not isinstance(value, list | tuple):
        return "" if value is None else _string(value, path)
    parts = []
    for index, part in enumerate(value):
        if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise InvalidRequest("Only parts of text can be learned from.", param=f"{path}[{index}]")
        parts.append({"type": "text", "text": part["text"]})
    return parts


def _calls(value: Any, path: str) -> list[dict[str, Any]]:
    if not isinstance(value, list | tuple):
        raise InvalidRequest("tool_calls must be a list.", param=path)
    made = []
    for index, call in enumerate(value):
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
            raise InvalidRequest("A call must have a function with a name.", param=f"{path}[{index}].function")
        body = {"name": function["name"], "arguments": function.get("arguments") or "{}"}
        made.append({"type": "function", "function": body} | ({"id": call["id"]} if call.get("id") else {}))
    return made


def _string(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise InvalidRequest("It must be text.", param=path)
    return value
