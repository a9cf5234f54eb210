from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from tunechat.tests.tools.scripted import Turn, in_order, scripted_model
from tunechat.tools.agent.model import ChatTuneChat, opened_chat


def chat(url: str, name: str = "tiny", **settings: Any) -> AbstractAsyncContextManager[ChatTuneChat]:
    return opened_chat(name, f"{url}/v1", max_retries=0, **settings)


async def test_streams_keep_reasoning_usage_and_weights() -> None:
    with scripted_model(in_order(Turn("the answer", reasoning="first think"))) as model:
        async with chat(model.url) as made:
            pieces = [piece async for piece in made.astream("hi")]
    whole = pieces[0]
    for piece in pieces[1:]:
        whole = whole + piece
    assert whole.text.strip() == "the answer"
    assert whole.additional_kwargs["reasoning_content"] == "first think "
    assert whole.content_blocks[0]["type"] == "reasoning"
    assert whole.usage_metadata is not None and whole.usage_metadata["total_tokens"] == 5
    assert whole.response_metadata["model_name"] == "tiny@1"
    assert whole.response_metadata["system_fingerprint"] == "fp_1"
    assert model.requests[0]["stream_options"] == {"include_usage": True}


async def test_whole_answers_keep_reasoning_and_calls() -> None:
    with scripted_model(in_order(Turn("x", (("echo", {"a": 1}),), "think"))) as model:
        async with chat(model.url) as made:
            answer = await made.ainvoke("hi")
    assert answer.additional_kwargs["reasoning_content"] == "think"
    assert answer.tool_calls[0]["args"] == {"a": 1}


@pytest.mark.parametrize("name", ["gpt-5-helpdesk", "o1-notes", "gpt-5.2-pro", "codex-helper", "gpt-4o"])
async def test_names_of_adapters_change_nothing(name: str) -> None:
    with scripted_model(in_order(Turn("x"))) as model:
        async with chat(model.url, name, temperature=0.3) as made:
            await made.ainvoke("hi")
        assert model.requests[0]["temperature"] == 0.3 and "messages" in model.requests[0]
        assert not (made.profile or {}).get("structured_output")
        async with chat(model.url, name) as made:
            await made.ainvoke("hi")
        assert "temperature" not in model.requests[1]


async def test_keys_of_openai_are_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-for-openai-only")
    with scripted_model(in_order(Turn("x"))) as model:
        async with chat(model.url) as made, chat(model.url, api_key=SecretStr("ours")) as other:
            await made.ainvoke("hi")
            await other.ainvoke("hi")
    assert [headers["authorization"] for headers in model.headers] == ["Bearer none", "Bearer ours"]


async def test_structured_output_by_a_tool_call() -> None:
    class Person(BaseModel):
        """A person."""

        name: str

    with scripted_model(in_order(Turn(calls=(("Person", {"name": "Ada"}),)))) as model:
        async with chat(model.url) as made:
            by_call = made.with_structured_output(Person, method="function_calling")
            assert await by_call.ainvoke("hi") == Person(name="Ada")
