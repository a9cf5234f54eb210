"""The official client, unmodified, against the application."""

from __future__ import annotations

import openai
import pytest

from tunechat.serve.contract.errors import EngineFailed, Overloaded
from tunechat.tests.serve.api.conftest import Serve, Served
from tunechat.tests.serve.api.harness import MODEL


def client_of(served: Served, retries: int = 0) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url="http://localhost:8000/v1", api_key="any", http_client=served.client, max_retries=retries
    )


MESSAGES = [{"role": "user", "content": "Hi"}]


async def test_chat_whole_and_streamed(serve: Serve) -> None:
    client = client_of(await serve({"answer": "Hello"}))
    whole = await client.chat.completions.create(model=MODEL, messages=MESSAGES)  # type: ignore[call-overload]
    assert whole.choices[0].message.content == "Hello"
    assert whole._request_id.startswith("req_")
    text, usage = "", None
    stream = await client.chat.completions.create(  # type: ignore[call-overload]
        model=MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    async for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
    assert text == "Hello"
    assert usage == whole.usage


async def test_the_stream_helper_builds_the_same_reply(serve: Serve) -> None:
    client = client_of(await serve({"answer": "Hello"}))
    async with client.chat.completions.stream(
        model=MODEL,
        messages=MESSAGES,  # type: ignore[arg-type]
        n=2,
        logprobs=True,
        top_logprobs=1,
    ) as stream:
        async for _ in stream:
            pass
        final = await stream.get_final_completion()
    for choice in final.choices:
        assert (choice.message.content, choice.finish_reason) == ("Hello", "stop")
        assert choice.logprobs is not None
        assert "".join(entry.token for entry in choice.logprobs.content or []) == "Hello"


async def test_completions_and_models(serve: Serve) -> None:
    client = client_of(await serve({"answer": "Hello"}))
    reply = await client.completions.create(model=MODEL, prompt=["a", "b"], logprobs=2, echo=True)
    assert [choice.text for choice in reply.choices] == ["aHello", "bHello"]
    assert [model.id async for model in client.models.list()] == [MODEL]
    assert (await client.models.retrieve(MODEL)).id == MODEL


async def test_errors_are_the_clients_own(serve: Serve) -> None:
    served = await serve({"answer": "Hello", "faults": {}})
    client = client_of(served)
    with pytest.raises(openai.BadRequestError) as wrong:
        await client.chat.completions.create(model=MODEL, messages=MESSAGES, n=0)  # type: ignore[call-overload]
    assert (wrong.value.param, wrong.value.code) == ("n", "invalid_value")
    with pytest.raises(openai.NotFoundError):
        await client.chat.completions.create(model="other", messages=MESSAGES)  # type: ignore[call-overload]
    served.engine.refusal = Overloaded("full")
    with pytest.raises(openai.RateLimitError):
        await client.chat.completions.create(model=MODEL, messages=MESSAGES)  # type: ignore[call-overload]
    served.engine.refusal = None
    served.engine.faults = {2: EngineFailed("dead")}
    with pytest.raises(openai.APIError) as failed:
        stream = await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)  # type: ignore[call-overload]
        async for _ in stream:
            pass
    assert failed.value.code == "engine_failed"


async def test_a_wrong_key_is_an_authentication_error(serve: Serve) -> None:
    client = client_of(await serve(api_keys=("the-right-key",)))
    with pytest.raises(openai.AuthenticationError):
        await client.models.list()


async def test_the_client_comes_back_when_the_queue_was_full(serve: Serve) -> None:
    served = await serve({"answer": "Hello"})
    refusals = [Overloaded("full", retry_after=1)]
    generate = served.engine.generate

    def sometimes(*args: object, **kwargs: object) -> object:
        if refusals:
            raise refusals.pop()
        return generate(*args, **kwargs)  # type: ignore[arg-type]

    served.engine.generate = sometimes  # type: ignore[method-assign, assignment]
    reply = await client_of(served, retries=1).chat.completions.create(model=MODEL, messages=MESSAGES)  # type: ignore[call-overload]
    assert reply.choices[0].message.content == "Hello"
