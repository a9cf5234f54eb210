"""Anthropic's Messages requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from ...text.dialects.tool import MAX_TOOLS
from .adapters import MAX_ADAPTERS, AdapterWeight
from .chat import MAX_MESSAGES, MAX_PARTS
from .fields import MAX_TOKENS, Only, RequestModel, Seed, StopString

# The kinds of blocks that are read, and the fields that each must have.
BLOCKS: Mapping[str, tuple[str, ...]] = {
    "text": ("text",),
    "tool_use": ("id", "name", "input"),
    "tool_result": ("tool_use_id",),
    "thinking": ("thinking",),
    "redacted_thinking": (),
}

Id = Annotated[str, Field(max_length=256)]


class TextPart(RequestModel):
    """A block where only text is read: in the system prompt, and in what came of a call."""

    type: Annotated[str, Field(max_length=64, json_schema_extra={"enum": ["text"]})]
    text: str | None = None


Texts = Annotated[list[TextPart], Field(max_length=MAX_PARTS, fail_fast=True)]


class Block(RequestModel):
    """One block of a message. Which fields it must have depends on its type; `cache_control` changes nothing here."""

    type: Annotated[str, Field(max_length=64, json_schema_extra={"enum": list(BLOCKS)})]
    text: str | None = None

    id: Id | None = None
    name: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    input: dict[str, Any] | None = None

    tool_use_id: Id | None = None
    content: str | Texts | None = None
    is_error: bool | None = None

    thinking: str | None = None
    signature: str | None = None
    data: str | None = None


Blocks = Annotated[list[Block], Field(max_length=MAX_PARTS, fail_fast=True)]


class MessageParam(RequestModel):
    role: Literal["user", "assistant", "system"]
    content: str | Blocks


class ToolParam(RequestModel):
    """A tool that the client runs. Those with a `type` of Anthropic's are refused: their schemas are not told."""

    type: Annotated[str, Field(max_length=64, json_schema_extra={"enum": ["custom"]})] | None = None
    name: Annotated[str, Field(max_length=256)] | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None


class ToolChoiceParam(RequestModel):
    type: Literal["auto", "any", "tool", "none"]
    name: Annotated[str, Field(max_length=256)] | None = None
    disable_parallel_tool_use: bool | None = None


class ThinkingParam(RequestModel):
    """Whether the model may reason. A budget is not kept: `max_tokens` bounds thoughts and answer together."""

    type: Literal["enabled", "adaptive", "disabled"]
    budget_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None
    display: Literal["summarized", "omitted"] | None = None


class OutputFormat(RequestModel):
    type: Literal["json_schema"]
    schema_: Annotated[dict[str, Any], Field(alias="schema")]


class OutputConfig(RequestModel):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None


class Edit(RequestModel):
    """A change that the server is to make to earlier turns."""

    type: Annotated[str, Field(max_length=64)]


class ContextManagement(RequestModel):
    edits: Annotated[list[Edit], Field(max_length=64, fail_fast=True)] | None = None


class CountTokensRequest(RequestModel):
    """What the model is to read."""

    model: Annotated[str, Field(min_length=1, max_length=512)]
    messages: Annotated[list[MessageParam], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)]
    system: str | Texts | None = None
    tools: Annotated[list[ToolParam], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    tool_choice: ToolChoiceParam | None = None
    thinking: ThinkingParam | None = None
    output_config: OutputConfig | None = None
    context_management: ContextManagement | None = None

    # Each would have this server fetch, run or remember something.
    mcp_servers: Annotated[Any, Only([])] = None
    container: Annotated[Any, Only()] = None
    thread: Annotated[Any, Only()] = None
    compaction: Annotated[Any, Only()] = None
    # What `output_config` has taken the place of.
    output_format: Annotated[Any, Only()] = None


class MessagesRequest(CountTokensRequest):
    """The same, and how the model is to answer."""

    max_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)]
    stream: bool | None = None
    stop_sequences: Annotated[list[StopString], Field(max_length=256, fail_fast=True)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=MAX_TOKENS)] | None = None

    # This server's own, as its chats have them.
    seed: Seed | None = None
    cache_salt: Annotated[str, Field(max_length=512)] | None = None
    adapters: Annotated[list[AdapterWeight], Field(min_length=1, max_length=MAX_ADAPTERS, fail_fast=True)] | None = None

    # Accepted and without effect on the answer.
    metadata: dict[str, Any] | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
