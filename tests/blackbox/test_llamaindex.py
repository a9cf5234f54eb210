"""LlamaIndex' OpenAILike, unmodified, against a real server.

It needs the extra `conformance`, whose packages want an older client of OpenAI's than the tests do; without, it is
skipped.
"""

from __future__ import annotations

from typing import Any, Literal

import httpx
import pytest
from pydantic import BaseModel, Field

from tunechat.tests.blackbox.server import MODEL, Server

pytest.importorskip("llama_index.llms.openai_like", reason="the extra `conformance` is not installed")

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike

pytestmark = [
    pytest.mark.usefixtures("healthy_at_end"),
    # Its own dependencies warn of each other.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


class Person(BaseModel):
    """A person."""

    name: str = Field(max_length=20)
    age: int = Field(ge=0, le=120)


def multiply(a: int, b: int) -> int:
    """Multiplies two numbers."""
    return a * b


class Shout(BaseModel):
    """Says a word aloud."""

    word: Literal["hey", "ho"]


def shout(word: str) -> str:
    return word.upper()


def model(server: Server, **options: Any) -> OpenAILike:
    made: dict[str, Any] = {"api_base": f"{server.url}/v1", "api_key": "any", "max_retries": 0, "max_tokens": 60}
    return OpenAILike(model=MODEL, context_window=8192, temperature=0, **made, **options)


def test_completions_are_its_default(server: Server) -> None:
    llm = model(server)
    whole = llm.complete("One, two, three,")
    assert whole.text
    assert list(llm.stream_complete("One, two, three,"))[-1].text == whole.text


def test_chat(server: Server) -> None:
    llm = model(server, is_chat_model=True)
    talk = [ChatMessage(role="user", content="Name a river.")]
    whole = llm.chat(talk)
    assert whole.message.content
    assert list(llm.stream_chat(talk))[-1].message.content == whole.message.content


async def test_chat_asynchronously(server: Server) -> None:
    talk = [ChatMessage(role="user", content="Name a river.")]
    async with httpx.AsyncClient(trust_env=False) as http:
        llm = model(server, is_chat_model=True, async_http_client=http)
        pieces = [piece async for piece in await llm.astream_chat(talk)]
        assert pieces[-1].message.content == (await llm.achat(talk)).message.content


@pytest.mark.parametrize("parallel", [False, True])
def test_tools_are_called_with_arguments_of_their_types(server: Server, parallel: bool) -> None:
    llm = model(server, is_chat_model=True, is_function_calling_model=True)
    tools = {
        "multiply": FunctionTool.from_defaults(multiply),
        "shout": FunctionTool.from_defaults(shout, name="shout", fn_schema=Shout),
    }
    asked: dict[str, Any] = {"tools": list(tools.values()), "user_msg": "Say hey.", "tool_required": True}
    asked["allow_parallel_tool_calls"] = parallel
    reply = llm.chat_with_tools(**asked, max_tokens=900)
    calls = llm.get_tool_calls_from_response(reply)
    assert calls and (parallel or len(calls) == 1)
    for call in calls:
        assert tools[call.tool_name](**call.tool_kwargs).raw_output is not None
    streamed = list(llm.stream_chat_with_tools(**asked, max_tokens=900))[-1]
    again = llm.get_tool_calls_from_response(streamed)
    assert [(call.tool_name, call.tool_kwargs) for call in again] == [(c.tool_name, c.tool_kwargs) for c in calls]


def test_structured_output_is_the_class(server: Server) -> None:
    llm = model(server, is_chat_model=True, is_function_calling_model=True)
    reply = llm.as_structured_llm(Person).complete("Ann is 7.")
    assert isinstance(reply.raw, Person)
