"""A Responses request as a chat, which is checked, limited, sampled and generated as any other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..schemas.chat import ChatRequest
from ..schemas.responses import ResponsesRequest
from ..schemas.sampling import SamplingFields
from .conversation import Conversation, read_conversation
from .items import NormalItem, normal_items
from .naming import Places
from .tools import Offer, chat_choice, read_offer

# Fields of the shared ones that have another meaning, or none, in the chat that is made.
_NOT_SHARED = frozenset({"n", "response_format", "metadata", "stream", "stream_options"})


@dataclass(frozen=True, slots=True)
class Translation:
    """The chat, the tools that its model is told of, and the request's own items in their normal form.

    Whatever goes wrong with the chat is to be told within `places.named()`.
    """

    chat: ChatRequest
    offer: Offer
    items: list[NormalItem]
    places: Places


def translate(
    body: ResponsesRequest,
    context: Sequence[NormalItem],
    stored: Mapping[str, NormalItem],
    *,
    is_codex: bool = False,
) -> Translation:
    """`body` after the items of `context`. Slow for long conversations: call it in a thread.

    `stored` has the items that `body` refers to. Raises InvalidRequest and Unsupported, naming the field.
    """
    items = normal_items(body.input, stored)
    offer = read_offer(body.tools, is_codex=is_codex)
    conversation = read_conversation(body.instructions, context, items)
    places = Places(conversation.paths, conversation.call_paths, offer.paths)
    with places.named():
        return Translation(_chat(body, conversation, offer), offer, items, places)


def _chat(body: ResponsesRequest, conversation: Conversation, offer: Offer) -> ChatRequest:
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
