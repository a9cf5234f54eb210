"""OpenAI's request for embeddings."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from .adapters import MAX_ADAPTERS, AdapterWeight
from .fields import MAX_TOKENS, Only, RequestModel, TokenIds

# As many as OpenAI takes; LangChain sends a thousand at once.
MAX_INPUTS = 2048

Input = (
    str
    | Annotated[list[str], Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True)]
    | TokenIds
    | Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True)]
)


class EmbeddingRequest(RequestModel):
    """Texts, or their token ids, to be made into vectors."""

    model: Annotated[str, Field(min_length=1, max_length=512)]
    input: Input
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None
    adapters: Annotated[list[AdapterWeight], Field(min_length=1, max_length=MAX_ADAPTERS, fail_fast=True)] | None = (
        Field(default=None, description="Adapters whose weighted sum is used, in place of the one that `model` names.")
    )
    cache_salt: Annotated[str, Field(max_length=512)] | None = None
    user: Annotated[str, Field(max_length=4096)] | None = None

    # vLLM's, which would cut what was sent.
    truncate_prompt_tokens: Annotated[Any, Only()] = None

    @property
    def inputs(self) -> tuple[str | list[int], ...]:
        """The inputs, one an item."""
        if isinstance(self.input, str):
            return (self.input,)
        single = [item for item in self.input if isinstance(item, int)]
        return (single,) if single else tuple(item for item in self.input if not isinstance(item, int))
