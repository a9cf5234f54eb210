"""OpenAI's chat request."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, WithJsonSchema, model_validator

from ...contract.errors import InvalidRequest, Unsupported
from ...text.dialects.tool import MAX_TOOLS
from .fields import MAX_TOKENS, Only, RequestModel
from .sampling import SamplingFields

MAX_MESSAGES = 4096
MAX_PARTS = 1024
MAX_CALLS = 128
MAX_STEPS = 4096


class ContentPart(RequestModel):
    """One part of a message's content; only text parts are read."""

    type: Annotated[str, Field(max_length=64, json_schema_extra={"const": "text"})]
    text: str | None = None


class CalledFunction(RequestModel):
    name: Annotated[str, Field(min_length=1, max_length=256)]
    arguments: str | dict[str, Any] | None = None


class ToolCall(RequestModel):
    """A call of an earlier turn."""

    id: Annotated[str, Field(max_length=256)] | None = None
    type: Literal["function"] | None = None
    function: CalledFunction

    def for_template(self) -> dict[str, Any]:
        """As templates know it; whether the arguments are an object is for the dialect to see."""
        function = {"name": self.function.name, "arguments": self.function.arguments or "{}"}
        return {"type": "function", "function": function} | ({} if self.id is None else {"id": self.id})


class StepCall(RequestModel):
    id: Annotated[str, Field(max_length=256)]
    name: Annotated[str, Field(min_length=1, max_length=256)]
    arguments: str

    def for_template(self) -> dict[str, Any]:
        function = {"name": self.name, "arguments": readable(self.arguments)}
        return {"type": "function", "id": self.id, "function": function}


class StepResult(RequestModel):
    content: str


class ToolStep(RequestModel):
    """A call that the server ran in an earlier answer, and what came of it."""

    round: Annotated[int, Field(ge=0, le=1000)] = 0
    tool_call: StepCall
    tool_result: StepResult


class ToolSteps(RequestModel):
    """What the server added to a message of its own, sent back with it."""

    steps: Annotated[list[ToolStep], Field(default_factory=list, max_length=MAX_STEPS, fail_fast=True)]

    def for_template(self) -> list[dict[str, Any]]:
        """The turns of calls, each with its results after it."""
        messages: list[dict[str, Any]] = []
        for _, group in itertools.groupby(self.steps, key=lambda step: step.round):
            steps = list(group)
            calls = [step.tool_call.for_template() for step in steps]
            messages.append({"role": "assistant", "content": "", "tool_calls": calls})
            messages += [
                {"role": "tool", "tool_call_id": step.tool_call.id, "content": step.tool_result.content}
                for step in steps
            ]
        return messages


class Message(RequestModel):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[ContentPart], Field(min_length=1, max_length=MAX_PARTS, fail_fast=True)] | None = None
    name: Annotated[str, Field(max_length=256)] | None = None
    tool_call_id: Annotated[str, Field(max_length=256)] | None = None

    tool_calls: Annotated[list[ToolCall], Field(max_length=MAX_CALLS, fail_fast=True)] | None = None
    reasoning_content: str | None = None
    tunechat: ToolSteps | None = None

    function_call: Annotated[Any, WithJsonSchema({"type": "null"})] = None
    audio: Annotated[Any, WithJsonSchema({"type": "null"})] = None

    @property
    def text(self) -> str:
        """The content as one string; parts are joined by line breaks."""
        if isinstance(self.content, list):
            return "\n".join(part.text or "" for part in self.content)
        return self.content or ""

    @property
    def is_of_tools(self) -> bool:
        """Whether it makes calls or has the result of one."""
        return self.role == "tool" or bool(self.tool_calls) or bool(self.earlier)

    @property
    def earlier(self) -> list[dict[str, Any]]:
        """What a chat template sees before the message: calls that the server ran on the way to it."""
        return self.tunechat.for_template() if self.tunechat is not None and self.role == "assistant" else []

    @property
    def _text_or_parts(self) -> str | list[dict[str, str]]:
        if not isinstance(self.content, list):
            return self.content or ""
        return [{"type": "text", "text": part.text or ""} for part in self.content]

    def for_template(self) -> dict[str, Any]:
        """What a chat template sees. A developer's word is a system's word to models that know no developers."""
        message: dict[str, Any] = {
            "role": "system" if self.role == "developer" else self.role,
            "content": self._text_or_parts,
        }
        if self.name is not None:
            message["name"] = self.name
        if self.tool_call_id is not None:
            message["tool_call_id"] = self.tool_call_id
        if self.reasoning_content is not None and self.role == "assistant":
            message["reasoning_content"] = self.reasoning_content
        if self.tool_calls:
            message["tool_calls"] = [call.for_template() for call in self.tool_calls]
        return message


class ChatRequest(SamplingFields):
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)]

    max_completion_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=100)] | None = None

    tools: Annotated[list[dict[str, Any]], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None

    chat_template_kwargs: dict[Annotated[str, Field(max_length=64)], Any] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    echo: bool | None = None

    # Accepted and without effect on the answer.
    safety_identifier: Annotated[str, Field(max_length=4096)] | None = None
    prompt_cache_key: Annotated[str, Field(max_length=4096)] | None = None
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None = None

    store: Annotated[Any, Only(False)] = None
    service_tier: Annotated[Any, Only("auto", "default")] = None
    modalities: Annotated[Any, Only(["text"])] = None
    functions: Annotated[Any, Only([])] = None
    function_call: Annotated[Any, Only("none", "auto")] = None
    reasoning_effort: Annotated[Any, Only("none")] = None
    verbosity: Annotated[Any, Only("medium")] = None
    audio: Annotated[Any, Only()] = None
    prediction: Annotated[Any, Only()] = None
    web_search_options: Annotated[Any, Only()] = None
    moderation: Annotated[Any, Only()] = None
    prompt_cache_options: Annotated[Any, Only({"mode": "implicit"})] = None

    # A template is code, and documents and the rest would end up in it.
    chat_template: Annotated[Any, Only()] = None
    documents: Annotated[Any, Only()] = None
    best_of: Annotated[Any, Only(1)] = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise InvalidRequest(
                "'max_tokens' and 'max_completion_tokens' differ; send one of them.", param="max_tokens"
            )
        if self.top_logprobs is not None and not self.logprobs:
            raise InvalidRequest("'top_logprobs' needs 'logprobs': true.", param="top_logprobs")
        if self.continue_final_message and self.add_generation_prompt:
            raise InvalidRequest(
                "'continue_final_message' and 'add_generation_prompt' exclude each other.",
                param="continue_final_message",
            )
        if self.echo and not self.continue_final_message:
            raise InvalidRequest("'echo' needs 'continue_final_message': true.", param="echo")
        check_messages(self.messages)
        return self

    @property
    def token_limit(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def token_limit_name(self) -> str:
        return "max_tokens" if self.max_completion_tokens is None else "max_completion_tokens"

    @property
    def alternatives(self) -> int | None:
        """How many rivals of each token to report; None for no log-probabilities at all."""
        return (self.top_logprobs or 0) if self.logprobs else None


def readable(arguments: str) -> str:
    """Arguments that the server's tools were called with, for templates: what was no object is not shown again."""
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return "{}"
    return arguments if isinstance(value, dict) else "{}"


def check_messages(messages: Sequence[Message]) -> None:
    """Raises InvalidRequest or Unsupported, naming the message and the field, for what no template is shown."""
    for position, message in enumerate(messages):
        _check_message(message, f"messages[{position}]")


def _check_message(message: Message, where: str) -> None:
    for field in ("function_call", "audio"):
        if getattr(message, field) is not None:
            raise Unsupported(f"'{field}' in messages is not supported by this server.", param=f"{where}.{field}")
    if message.tool_calls and message.role != "assistant":
        raise InvalidRequest("Only the assistant makes calls.", param=f"{where}.tool_calls")
    if message.content is None and message.role != "assistant":
        raise InvalidRequest("A message needs content.", param=f"{where}.content")
    if isinstance(message.content, list):
        for position, part in enumerate(message.content):
            if part.type != "text":
                raise Unsupported(
                    "Only text parts are supported by this server.",
                    param=f"{where}.content[{position}].type",
                    code="unsupported_content",
                )
            if part.text is None:
                raise InvalidRequest("A text part needs text.", param=f"{where}.content[{position}].text")
