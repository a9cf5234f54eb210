"""A Messages request as the chat request that means the same, so that both are checked and answered alike."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...contract.errors import ContextLengthExceeded, InvalidRequest, TunechatError, Unsupported
from ..schemas.chat import ChatRequest
from ..schemas.messages import CountTokensRequest, MessagesRequest, ToolChoiceParam, ToolParam
from ..settings import ApiSettings
from .conversation import Turn, prefills, read_turns

_MODES = {"auto": "auto", "any": "required", "none": "none"}
# Templates that know degrees of effort know these three.
_EFFORTS = {"xhigh": "high", "max": "high"}
_PLACE = re.compile(r"messages\[(\d+)\](?:\.tool_calls\[(\d+)\])?")
# Fields of chats, and what they are called here.
_NAMES = (
    (re.compile(r"^(tools\[\d+\])\.function\.parameters"), r"\1.input_schema"),
    (re.compile(r"^(tools\[\d+\])\.function"), r"\1"),
    (re.compile(r"^response_format\.json_schema"), "output_config.format"),
    (re.compile(r"^response_format"), "output_config.format"),
    (re.compile(r"^chat_template_kwargs\.reasoning_effort"), "output_config.effort"),
    (re.compile(r"^chat_template_kwargs.*"), "thinking"),
    (re.compile(r"^(continue_final_message|add_generation_prompt)"), "messages"),
    (re.compile(r"^tool_choice\.function"), "tool_choice"),
    (re.compile(r"^stop\b"), "stop_sequences"),
)


@dataclass(frozen=True, slots=True)
class Chat:
    """A chat request, and the turns that it was made of."""

    body: ChatRequest
    turns: Sequence[Turn]

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Errors that leave the block name fields of the Messages request."""
        try:
            yield
        except ContextLengthExceeded as error:
            error.param = self.field(error.param)
            if error.context_length:
                # In these words clients look for it, to shorten the conversation themselves.
                error.param = None
                error.message = f"prompt is too long: {error.prompt_tokens} tokens > {error.context_length} maximum"
            raise
        except TunechatError as error:
            error.param = self.field(error.param)
            raise

    def field(self, param: str | None) -> str | None:
        """The field of the Messages request that field `param` of the chat was made from."""
        if param is None:
            return None
        place = _PLACE.match(param)
        if place:
            return self._place(int(place[1]), place[2])
        for pattern, name in _NAMES:
            param, count = pattern.subn(name, param)
            if count:
                return param
        return param

    def _place(self, index: int, call: str | None) -> str:
        if index >= len(self.turns):
            return "messages"
        turn = self.turns[index]
        return turn.path if call is None or int(call) >= len(turn.call_paths) else turn.call_paths[int(call)]


def as_chat(body: CountTokensRequest) -> Chat:
    """The chat that means what `body` says. `max_tokens` stays out of it: it is an upper bound here, and no promise.

    Raises InvalidRequest and Unsupported, with the path of the field.
    """
    _check_edits(body)
    turns = read_turns(body)
    fields: dict[str, Any] = {
        "model": body.model,
        "messages": [turn.as_message() for turn in turns],
        "tools": [_tool(tool, f"tools[{index}]") for index, tool in enumerate(body.tools or ())] or None,
        "chat_template_kwargs": _template_fields(body),
        "continue_final_message": prefills(body) or None,
    }
    if body.tool_choice is not None:
        fields["tool_choice"] = _choice(body.tool_choice)
        fields["parallel_tool_calls"] = not body.tool_choice.disable_parallel_tool_use
    if body.output_config is not None and body.output_config.format is not None:
        schema = {"name": "output", "schema": body.output_config.format.schema_}
        fields["response_format"] = {"type": "json_schema", "json_schema": schema}
    if isinstance(body, MessagesRequest):
        fields |= {
            "stop": body.stop_sequences or None,
            "temperature": body.temperature,
            "top_p": body.top_p,
            "top_k": body.top_k,
            "seed": body.seed,
            "cache_salt": body.cache_salt,
            "adapters": body.adapters,
        }
    return Chat(ChatRequest(**fields), turns)


def check_stops(body: MessagesRequest, settings: ApiSettings) -> None:
    """Raises InvalidRequest for more stop sequences than the server takes."""
    if len(body.stop_sequences or ()) > settings.max_stop_strings:
        raise InvalidRequest(
            f"At most {settings.max_stop_strings} stop sequences are taken here.", param="stop_sequences"
        )


def _tool(tool: ToolParam, path: str) -> Mapping[str, Any]:
    if tool.type is not None and tool.type != "custom":
        raise Unsupported(
            "Tools that Anthropic defines or runs are not supported by this server; send a tool of your own, with a "
            "name and an input_schema.",
            param=f"{path}.type",
        )
    for name in ("name", "input_schema"):
        if getattr(tool, name) is None:
            param = f"{path}.{name}"
            raise InvalidRequest(
                f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter"
            )
    function: dict[str, Any] = {"name": tool.name, "description": tool.description, "parameters": tool.input_schema}
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def _choice(choice: ToolChoiceParam) -> str | dict[str, Any]:
    if choice.type != "tool":
        return _MODES[choice.type]
    if choice.name is None:
        raise InvalidRequest(
            "Missing required parameter: 'tool_choice.name'.",
            param="tool_choice.name",
            code="missing_required_parameter",
        )
    return {"type": "function", "function": {"name": choice.name}}


def _template_fields(body: CountTokensRequest) -> dict[str, Any]:
    """What chat templates know of reasoning; those that know nothing of it are told in vain."""
    thinks = body.thinking is not None and body.thinking.type != "disabled"
    fields: dict[str, Any] = {"enable_thinking": thinks, "thinking": thinks}
    effort = body.output_config.effort if body.output_config else None
    if effort is not None:
        fields["reasoning_effort"] = _EFFORTS.get(effort, effort)
    return fields


def _check_edits(body: CountTokensRequest) -> None:
    """Old thoughts are for the template to leave out; nothing else of a conversation is cut here."""
    for index, edit in enumerate((body.context_management and body.context_management.edits) or ()):
        if not edit.type.startswith("clear_thinking_"):
            raise Unsupported(
                "The only edit supported by this server is clear_thinking; shorten the conversation yourself.",
                param=f"context_management.edits[{index}].type",
            )
