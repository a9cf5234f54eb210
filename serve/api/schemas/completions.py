"""OpenAI's text completion request."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from ...contract.errors import InvalidRequest, Unsupported
from .fields import MAX_PROMPTS, MAX_TOKENS, Only, TokenIds
from .sampling import SamplingFields

# OpenAI's default for text completions.
DEFAULT_MAX_TOKENS = 16

Prompt = (
    str
    | Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)]
    | TokenIds
    | Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)]
)


class CompletionRequest(SamplingFields):
    prompt: Prompt

    max_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=100)] | None = None
    echo: bool | None = None
    best_of: Annotated[int, Field(ge=1, le=1024)] | None = None
    parse_special: bool | None = Field(
        default=None, description="Read special tokens in text prompts as tokens. Off: they are plain text."
    )
    suffix: Annotated[Any, Only("")] = None

    @model_validator(mode="after")
    def _best_of_is_n(self) -> Self:
        if self.best_of is not None and self.best_of != self.choices:
            raise Unsupported("'best_of' other than 'n' is not supported by this server.", param="best_of")
        if self.max_tokens == 0 and not self.echo:
            raise InvalidRequest("'max_tokens' of 0 needs 'echo': true.", param="max_tokens")
        return self

    @property
    def prompts(self) -> tuple[str | list[int], ...]:
        """The prompts, one an item."""
        if isinstance(self.prompt, str):
            return (self.prompt,)
        single = [item for item in self.prompt if isinstance(item, int)]
        return (single,) if single else tuple(item for item in self.prompt if not isinstance(item, int))

    @property
    def token_limit(self) -> int:
        return DEFAULT_MAX_TOKENS if self.max_tokens is None else self.max_tokens
