"""A Responses request as a chat: checked, limited, sampled and generated as any other."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...text.dialects import Dialect
from ..planning import ChatPlan, plan_chat
from ..ports import Text
from ..schemas.chat import ChatRequest
from ..schemas.responses import ResponsesRequest
from ..schemas.sampling import SamplingFields
from ..settings import ApiSettings
from .conversation import Conversation, read_conversation
from .items import NormalItem, normal_items
from .naming import own_name, own_words
from .tools import Offer, chat_choice, read_offer

# Fields of the shared ones that have another meaning, or none, in the chat that is made.
_NOT_SHARED = frozenset({"n", "response_format", "metadata", "stream", "stream_options"})


@dataclass(frozen=True, slots=True)
class ResponsePlan:
    """What is generated, the tools that the model is told of, and the request's own items in their normal form."""

    chat: ChatPlan
    offer: Offer
    items: list[NormalItem]


def plan_response(
    body: ResponsesRequest,
    context: Sequence[NormalItem],
    stored: Mapping[str, NormalItem],
    *,
    text: Text,
    dialect: Dialect,
    settings: ApiSettings,
    context_length: int,
    is_codex: bool = False,
) -> ResponsePlan:
    """The plan of `body` after the items of `context`. Slow for long conversations: call it in a thread.

    `stored` has the items that `body` refers to. Errors name the fields of Responses.
    """
    items = normal_items(body.input, stored)
    offer = read_offer(body.tools, is_codex=is_codex)
    conversation = read_conversation(body.instructions, context, items)
    with own_words(conversation.paths, conversation.call_paths, offer.paths):
        chat = plan_chat(as_chat(body, conversation, offer), text, dialect, settings, context_length)
    sequences = [dataclasses.replace(one, grammar_field=_own_field(one.grammar_field)) for one in chat.sequences]
    return ResponsePlan(ChatPlan(sequences, chat.turn), offer, items)


def as_chat(body: ResponsesRequest, conversation: Conversation, offer: Offer) -> ChatRequest:
    """The chat request that asks for the same."""
    shared = (body.model_fields_set & SamplingFields.model_fields.keys()) - _NOT_SHARED
    fields: dict[str, Any] = {name: getattr(body, name) for name in shared}
    fields |= {
        "messages": conversation.messages,
        "tools": offer.chat,
        "tool_choice": chat_choice(body.tool_choice),
        "parallel_tool_calls": body.parallel_tool_calls,
        "response_format": body.text.format if body.text else None,
        "max_completion_tokens": body.max_output_tokens,
        "logprobs": body.alternatives is not None,
        "top_logprobs": body.alternatives,
        "chat_template_kwargs": body.chat_template_kwargs,
    }
    return ChatRequest.model_validate(fields)


def _own_field(field: str | None) -> str | None:
    return None if field is None else own_name(field)
