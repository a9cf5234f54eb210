"""The sampling fields that chat and text completions share, and their way into the engine's parameters."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from ...contract.errors import InvalidRequest
from .adapters import MAX_ADAPTERS, AdapterWeight
from .fields import MAX_TOKENS, Only, RequestModel, Seed, StopString, TokenId

# The kinds of the older fields that `structured_outputs` has taken the place of.
GUIDED = ("json", "regex", "choice", "grammar")


class StreamOptions(RequestModel):
    include_usage: bool | None = None
    include_obfuscation: Annotated[Any, Only(False)] = None


class SamplingFields(RequestModel):
    """Fields and bounds of OpenAI's requests and of the extras that vLLM's clients send."""

    model: Annotated[str, Field(min_length=1, max_length=512)]

    stream: bool | None = None
    stream_options: StreamOptions | None = None

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=MAX_TOKENS)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=10)] | None = None
    logit_bias: (
        Annotated[
            dict[Annotated[str, Field(max_length=16)], Annotated[float, Field(ge=-100, le=100)]],
            Field(max_length=1024, json_schema_extra={"propertyNames": {"pattern": "^[0-9]{1,10}$"}}),
        ]
        | None
    ) = None
    seed: Seed | None = None
    n: Annotated[int, Field(ge=1, le=1024)] | None = None
    stop: StopString | Annotated[list[StopString], Field(max_length=256, fail_fast=True)] | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=256, fail_fast=True)] | None = None
    skip_special_tokens: bool | None = None
    include_stop_str_in_output: bool | None = None
    min_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)] | None = None
    ignore_eos: bool | None = None
    cache_salt: Annotated[str, Field(max_length=512)] | None = None

    adapters: Annotated[list[AdapterWeight], Field(min_length=1, max_length=MAX_ADAPTERS, fail_fast=True)] | None = (
        Field(default=None, description="Adapters whose weighted sum answers, in place of the one that `model` names.")
    )

    # What the text must be. The grammars that are made of these have bounds of their own.
    response_format: dict[str, Any] | None = None
    structured_outputs: dict[str, Any] | None = None
    guided_json: str | dict[str, Any] | None = None
    guided_regex: str | None = None
    guided_choice: Annotated[list[str], Field(fail_fast=True)] | None = None
    guided_grammar: str | None = None

    # Accepted and without effect on the answer: labels, and hints to schedulers and caches.
    user: Annotated[str, Field(max_length=4096)] | None = None
    metadata: dict[str, Any] | None = None

    # Extras of vLLM's that would change the answer.
    use_beam_search: Annotated[Any, Only(False)] = None
    truncate_prompt_tokens: Annotated[Any, Only()] = None
    prompt_logprobs: Annotated[Any, Only()] = None
    allowed_token_ids: Annotated[Any, Only()] = None
    bad_words: Annotated[Any, Only()] = None
    logits_processors: Annotated[Any, Only()] = None

    @model_validator(mode="after")
    def _stream_options_need_a_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise InvalidRequest("'stream_options' needs 'stream': true.", param="stream_options")
        return self

    @model_validator(mode="after")
    def _adapters_are_named_once(self) -> Self:
        names = [one.name for one in self.adapters or ()]
        if len(set(names)) < len(names):
            raise InvalidRequest("'adapters' names an adapter twice.", param="adapters")
        return self

    @property
    def choices(self) -> int:
        return self.n or 1

    @property
    def stop_strings(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def wants_usage_chunk(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)
