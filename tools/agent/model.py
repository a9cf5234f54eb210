"""`ChatTuneChat`: LangChain's OpenAI chat model, set up for a tunechat server.

LangChain's own class leaves out what a local server needs: it counts no tokens of streams with a custom address, drops
`reasoning_content`, and changes its requests by the model's name, which here is whatever an adapter is called.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
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
SERVER_TOOL = "tunechat"
# Of the calls that the server ran itself.
_STEPS = "tunechat"
_KEPT = ("reasoning_content", _STEPS)
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
    `additional_kwargs["reasoning_content"]`, and so among the message's `content_blocks`. Tools that the server runs
    are bound as `{"type": "tunechat", "name": "calculate"}`; their calls and results are in
    `additional_kwargs["tunechat"]`, and go back to the server with the message.
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

    def _get_request_payload(self, input_: Any, *, stop: list[str] | None = None, **kwargs: Any) -> dict[str, Any]:
        payload: dict[str, Any] = super()._get_request_payload(input_, stop=stop, **kwargs)
        for told, message in zip(payload["messages"], self._convert_input(input_).to_messages(), strict=True):
            if isinstance(message, AIMessage) and (steps := message.additional_kwargs.get(_STEPS)):
                told[_STEPS] = steps
        return payload

    def bind_tools(self, tools: Sequence[Any], **options: Any) -> Any:
        """As LangChain's own, and with tools of the server's among `tools`."""
        own = [tool for tool in tools if isinstance(tool, dict) and tool.get("type") == SERVER_TOOL]
        bound: Any = super().bind_tools([tool for tool in tools if tool not in own], **options)
        return bound.model_copy(update={"kwargs": {**bound.kwargs, "tools": [*bound.kwargs["tools"], *own]}})

    def _convert_chunk_to_generation_chunk(
        self, chunk: dict[str, Any], default_chunk_class: type, base_generation_info: dict[str, Any] | None
    ) -> ChatGenerationChunk | None:
        converted = super()._convert_chunk_to_generation_chunk(chunk, default_chunk_class, base_generation_info)
        choices = chunk.get("choices") or []
        if converted is not None and choices and isinstance(converted.message, AIMessageChunk):
            _keep(choices[0].get("delta"), converted.message)
        return converted

    def _create_chat_result(self, response: Any, generation_info: dict[str, Any] | None = None) -> ChatResult:
        result = super()._create_chat_result(response, generation_info)
        told = response if isinstance(response, dict) else response.model_dump(warnings=False)
        for generation, choice in zip(result.generations, told.get("choices") or [], strict=False):
            if isinstance(generation.message, AIMessage):
                _keep(choice.get("message"), generation.message)
        return result


def _keep(told: Mapping[str, Any] | None, message: AIMessage) -> None:
    """Takes over what LangChain leaves out."""
    message.response_metadata["model_provider"] = PROVIDER
    for name in _KEPT:
        if value := (told or {}).get(name):
            message.additional_kwargs[name] = value
