"""OpenAI's Responses request: its own fields, and the sampling fields that all dialects share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from ...contract.errors import InvalidRequest, Unsupported
from ...text.dialects.tool import MAX_TOOLS
from .chat import MAX_PARTS
from .fields import MAX_TOKENS, Only, RequestModel
from .sampling import SamplingFields

MAX_ITEMS = 4096
LOGPROBS = "message.output_text.logprobs"

Id = Annotated[str, Field(min_length=1, max_length=256)]
Includable = Literal[
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
]


class Part(RequestModel):
    """One part of a content; `items` says which types are read."""

    type: Annotated[str, Field(max_length=64)]
    text: str | None = None
    refusal: str | None = None


Parts = Annotated[list[Part], Field(max_length=MAX_PARTS, fail_fast=True)]


class MessageItem(RequestModel):
    """A message, in the long form or in the short one that has no type."""

    type: Literal["message"] | None = None
    role: Literal["user", "assistant", "system", "developer"]
    content: str | Parts


class CallItem(RequestModel):
    """A call that the model made."""

    type: Literal["function_call"]
    call_id: Id
    name: Id
    namespace: Id | None = None
    arguments: str


class CallOutputItem(RequestModel):
    """What a call gave."""

    type: Literal["function_call_output"]
    call_id: Id
    output: str | Parts


class ServerCallItem(RequestModel):
    """A call that the server ran, and what it gave, as an earlier response had it."""

    type: Literal["mcp_call"]
    server_label: Annotated[str, Field(max_length=256)]
    name: Id
    arguments: str
    output: str | None = None
    error: str | dict[str, Any] | None = None


class ReasoningItem(RequestModel):
    """What the model thought. What is encrypted was not encrypted here, and is left out."""

    type: Literal["reasoning"]
    summary: Parts | None = None
    content: Parts | None = None


class ItemReference(RequestModel):
    """An item that this server has stored."""

    type: Literal["item_reference"]
    id: Id


def _kind(value: Any) -> str | None:
    """The tag of an item; without a type it is a message."""
    kind = value.get("type") if isinstance(value, Mapping) else getattr(value, "type", None)
    return "message" if kind is None else kind if isinstance(kind, str) else None


Item = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[CallItem, Tag("function_call")]
    | Annotated[CallOutputItem, Tag("function_call_output")]
    | Annotated[ServerCallItem, Tag("mcp_call")]
    | Annotated[ReasoningItem, Tag("reasoning")]
    | Annotated[ItemReference, Tag("item_reference")],
    Discriminator(
        _kind,
        custom_error_type="item_type",
        custom_error_message="An item is a message, function_call, function_call_output, mcp_call, reasoning or "
        "item_reference",
    ),
]


class TextConfig(RequestModel):
    """What the text must be. The grammar that is made of `format` has bounds of its own."""

    format: dict[str, Any] | None = None
    verbosity: Annotated[Any, Only("medium", within="text")] = None


class ReasoningConfig(RequestModel):
    """A model thinks as much as it does; `medium` is OpenAI's word for what happens when nothing is said."""

    effort: Annotated[Any, Only("none", "medium", within="reasoning")] = None
    summary: Annotated[Any, Only("auto", within="reasoning")] = None
    generate_summary: Annotated[Any, Only("auto", within="reasoning")] = None


class ResponsesRequest(SamplingFields):
    input: str | Annotated[list[Item], Field(max_length=MAX_ITEMS, fail_fast=True)] | None = None
    instructions: str | None = None
    previous_response_id: Id | None = None

    max_output_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=100)] | None = None
    include: Annotated[list[Includable], Field(max_length=64, fail_fast=True)] | None = None
    text: TextConfig | None = None
    reasoning: ReasoningConfig | None = None

    tools: Annotated[list[dict[str, Any]], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None

    store: bool | None = None
    background: bool | None = None
    metadata: (
        Annotated[
            dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
        ]
        | None
    ) = None
    chat_template_kwargs: dict[Annotated[str, Field(max_length=64)], Any] | None = None

    # Accepted and without effect on the answer.
    safety_identifier: Annotated[str, Field(max_length=4096)] | None = None
    prompt_cache_key: Annotated[str, Field(max_length=4096)] | None = None
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None = None

    truncation: Annotated[Any, Only("disabled")] = None
    service_tier: Annotated[Any, Only("auto", "default")] = None
    conversation: Annotated[Any, Only()] = None
    prompt: Annotated[Any, Only()] = None
    context_management: Annotated[Any, Only()] = None
    max_tool_calls: Annotated[Any, Only()] = None
    moderation: Annotated[Any, Only()] = None
    image: Annotated[Any, Only()] = None
    background_options: Annotated[Any, Only()] = None
    access_programs: Annotated[Any, Only()] = None
    prompt_cache_options: Annotated[Any, Only({"mode": "implicit"})] = None
    n: Annotated[Any, Only(1)] = None
    # Chat's names for what has other names here; taken silently, they would have no effect.
    messages: Annotated[Any, Only()] = None
    response_format: Annotated[Any, Only()] = None
    max_tokens: Annotated[Any, Only()] = None
    max_completion_tokens: Annotated[Any, Only()] = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.input is None and self.previous_response_id is None:
            raise InvalidRequest(
                "Missing required parameter: 'input'.", param="input", code="missing_required_parameter"
            )
        if self.background and self.stream:
            raise Unsupported(
                "'stream' beside 'background' is not supported by this server; ask for the response by its id.",
                param="stream",
            )
        if self.background and self.store is False:
            raise InvalidRequest("'background' needs 'store': true.", param="store")
        return self

    @property
    def alternatives(self) -> int | None:
        """How many rivals of each token to report; None for no log-probabilities at all."""
        if LOGPROBS in (self.include or ()) or self.top_logprobs:
            return self.top_logprobs or 0
        return None
