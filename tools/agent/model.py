"""`ChatTuneChat`: LangChain's OpenAI chat model, set up for a tunechat server.

LangChain's own class leaves out what a local server needs: it counts no tokens of streams with a custom address, drops
`reasoning_content`, and changes its requests by the model's name, which here is whatever an adapter is called.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
from langchain_core.language_models.model_profile import ModelProfile
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_openai.chat_models.base import BaseChatOpenAI
from pydantic import Field, SecretStr, model_validator

# LangChain reads messages of OpenAI's own models, by this name, in a way that knows no `reasoning_content`.
PROVIDER = "tunechat"
DEFAULT_URL = "http://127.0.0.1:8000/v1"


@asynccontextmanager
async def opened_chat(model: str, base_url: str = DEFAULT_URL, **settings: Any) -> AsyncIterator[ChatTuneChat]:
    """A chat model with connections of its own, which are closed at the end. `settings` are those of ChatTuneChat."""
    # A proxy of the environment cannot reach this machine's own loopback address.
    local = urlsplit(base_url).hostname in {"127.0.0.1", "::1", "localhost"}
    async with httpx.AsyncClient(trust_env=not local, timeout=settings.get("timeout", 600.0)) as client:
        yield ChatTuneChat(model=model, base_url=base_url, http_async_client=client, **settings)


class ChatTuneChat(BaseChatOpenAI):
    """A chat model of the server at `base_url` (its `/v1`). `model` names the base, an adapter, or one of its versions.

    Replies say in `response_metadata` which weights gave them (`model_name`, `system_fingerprint`); reasoning is in
    `additional_kwargs["reasoning_content"]`, and so among the message's `content_blocks`.
    """

    openai_api_base: str | None = Field(default=DEFAULT_URL, alias="base_url")
    # A key of OpenAI's in the environment is for OpenAI's server only.
    openai_api_key: Any = Field(default=SecretStr("none"), alias="api_key")
    stream_usage: bool | None = True
    use_responses_api: bool | None = False

    @property
    def _llm_type(self) -> str:
        return "tunechat"

    @model_validator(mode="before")
    @classmethod
    def validate_temperature(cls, values: dict[str, Any]) -> Any:
        """Leaves the temperature alone; LangChain's changes it for names that begin like some of OpenAI's."""
        return values

    def _resolve_model_profile(self) -> ModelProfile:
        """What any model here can do, whatever its name.

        `structured_output` is off so that agents ask for it by a tool call, which leaves the model its other tools.
        """
        return ModelProfile(
            text_inputs=True,
            text_outputs=True,
            image_inputs=False,
            audio_inputs=False,
            tool_calling=True,
            tool_choice=True,
            structured_output=False,
        )

    def _convert_chunk_to_generation_chunk(
        self, chunk: dict[str, Any], default_chunk_class: type, base_generation_info: dict[str, Any] | None
    ) -> ChatGenerationChunk | None:
        converted = super()._convert_chunk_to_generation_chunk(chunk, default_chunk_class, base_generation_info)
        choices = chunk.get("choices") or []
        reasoning = (choices[0].get("delta") or {}).get("reasoning_content") if choices else None
        if converted is not None and choices and isinstance(converted.message, AIMessageChunk):
            converted.message.response_metadata["model_provider"] = PROVIDER
            if reasoning:
                converted.message.additional_kwargs["reasoning_content"] = reasoning
        return converted

    def _create_chat_result(self, response: Any, generation_info: dict[str, Any] | None = None) -> ChatResult:
        result = super()._create_chat_result(response, generation_info)
        told = response if isinstance(response, dict) else response.model_dump(warnings=False)
        for generation, choice in zip(result.generations, told.get("choices") or [], strict=False):
            reasoning = (choice.get("message") or {}).get("reasoning_content")
            if not isinstance(generation.message, AIMessage):
                continue
            generation.message.response_metadata["model_provider"] = PROVIDER
            if reasoning:
                generation.message.additional_kwargs["reasoning_content"] = reasoning
        return result
