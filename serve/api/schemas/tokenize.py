"""Requests that turn text into tokens and back."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from ...contract.errors import InvalidRequest
from ...text.dialects.tool import MAX_TOOLS
from .chat import MAX_MESSAGES, Message, check_messages
from .fields import OwnRequestModel, TokenId


class TokenizeRequest(OwnRequestModel):
    """A text (`prompt`) or a conversation (`messages`), one of them."""

    model: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    prompt: str | None = None
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)] | None = None
    add_special_tokens: bool | None = Field(default=None, description="Put the model's first token before a text.")
    parse_special: bool | None = Field(default=None, description="Read special tokens in a text as tokens.")
    return_token_strs: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    tools: Annotated[list[dict[str, Any]], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    chat_template_kwargs: dict[Annotated[str, Field(max_length=64)], Any] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise InvalidRequest("Send either 'prompt' or 'messages'.", param="prompt")
        check_messages(self.messages or ())
        return self


class DetokenizeRequest(OwnRequestModel):
    model: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    tokens: Annotated[list[TokenId], Field(max_length=1 << 20, fail_fast=True)]
