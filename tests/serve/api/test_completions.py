"""Text completions: prompts of every kind, echo, log-probabilities."""

from __future__ import annotations

import asyncio
import typing
from typing import Any

import pytest
from openai.types import Completion
from openai.types.completion_create_params import CompletionCreateParamsBase

from tunechat.serve.api.schemas.completions import CompletionRequest
from tunechat.tests.serve.api.conftest import Serve
from tunechat.tests.serve.api.harness import CONTEXT, FINGERPRINT, MODEL, completion, events_of

URL = "/v1/completions"


def test_every_field_of_openais_request_is_decided_on() -> None:
    assert set(typing.get_type_hints(CompletionCreateParamsBase)) <= set(CompletionRequest.model_fields)


async def test_the_reply_has_openais_shape(serve: Serve) -> None:
    served = await serve({"answer": "Hey"})
    reply = (await served.client.post(URL, json=completion())).json()
    Completion.model_validate(reply)
    assert reply["object"] == "text_completion"
    assert reply["id"].startswith("cmpl-")
    assert (reply["model"], reply["system_fingerprint"]) == (MODEL, f"fp_{FINGERPRINT[:12]}")
    assert reply["choices"] == [{"index": 0, "text": "Hey", "logprobs": None, "finish_reason": "stop"}]
    assert reply["usage"]["prompt_tokens"] == 2


@pytest.mark.parametrize(
    ("prompt", "count"),
    [("ab", 1), (["ab", "c"], 2), ([1, 2, 3], 1), ([[1], [2, 3], [4]], 3), (["x"], 1)],
)
async def test_prompts_of_every_kind(serve: Serve, prompt: Any, count: int) -> None:
    served = await serve({"answers": [f"answer {index}" for index in range(count * 2)]})
    reply = (await served.client.post(URL, json=completion(prompt, n=2))).json()
    assert [choice["text"] for choice in reply["choices"]] == [f"answer {index}" for index in range(count * 2)]
    prompts = [tokens for tokens, _ in served.engine.submitted]
    assert reply["usage"]["prompt_tokens"] == sum(len(tokens) for tokens in prompts[::2])


async def test_echo_puts_the_prompt_before_the_text(serve: Serve) -> None:
    served = await serve({"answer": "def"})
    assert (await served.client.post(URL, json=completion("abc", echo=True))).json()["choices"][0]["text"] == "abcdef"
    tokens = served.engine.text.encode("xyz")
    assert (await served.client.post(URL, json=completion(tokens, echo=True))).json()["choices"][0]["text"] == "xyzdef"


async def test_logprobs_and_offsets_with_echo(serve: Serve) -> None:
    served = await serve({"answer": "é!"})
    reply = (await served.client.post(URL, json=completion("ab", echo=True, logprobs=1))).json()
    logprobs = reply["choices"][0]["logprobs"]
    assert logprobs["token_logprobs"][0] is None
    assert logprobs["top_logprobs"][0] is None
    assert logprobs["tokens"][:2] == ["a", "b"]
    assert logprobs["text_offset"] == [0, 1, 2, 2, 3]
    assert all(len(lists) == 5 for lists in logprobs.values())


async def test_echo_alone_generates_nothing(serve: Serve) -> None:
    served = await serve({"answer": "zzz"})
    reply = (await served.client.post(URL, json=completion("ab", echo=True, logprobs=0, max_tokens=0))).json()
    assert reply["choices"][0]["text"] == "ab"
    assert reply["choices"][0]["finish_reason"] == "length"
    assert reply["usage"]["completion_tokens"] == 0


async def test_empty_prompts_are_refused(serve: Serve) -> None:
    served = await serve()
    for prompt, param in (("", "prompt"), ([], "prompt"), (["a", ""], "prompt[1]"), ([[]], "prompt[0]")):
        response = await served.client.post(URL, json=completion(prompt))
        assert response.status_code == 400
        assert response.json()["error"]["param"] == param
    assert not served.engine.submitted


async def test_special_tokens_in_text_are_text_unless_asked_for(serve: Serve) -> None:
    served = await serve()
    text = served.engine.text
    special = text.encode("<|im_end|>", parse_special=True)
    assert len(special) == 1
    await served.client.post(URL, json=completion("<|im_end|>"))
    await served.client.post(URL, json=completion("<|im_end|>", parse_special=True))
    assert [tokens == special for tokens, _ in served.engine.submitted] == [False, True]


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"suffix": "x"}, "suffix"), ({"best_of": 2}, "best_of"), ({"max_tokens": 0}, "max_tokens")],
)
async def test_what_is_not_done_is_refused(serve: Serve, fields: Any, param: str) -> None:
    served = await serve()
    response = await served.client.post(URL, json=completion(**fields))
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


async def test_the_context_bounds_each_prompt(serve: Serve) -> None:
    served = await serve()
    for length, limit, status in (
        (CONTEXT - 1, 1, 200),
        (CONTEXT - 1, 2, 400),
        (CONTEXT, 1, 400),
        (CONTEXT + 1, 1, 400),
    ):
        response = await served.client.post(URL, json=completion(["a", "x" * length], max_tokens=limit))
        assert response.status_code == status
        if status == 400:
            assert response.json()["error"]["code"] == "context_length_exceeded"


async def test_chunks_of_several_prompts(serve: Serve) -> None:
    served = await serve({"answers": ["ab", "cd"]})
    body = completion(["x", "y"], stream=True, stream_options={"include_usage": True})
    *chunks, usage, end = events_of((await served.client.post(URL, json=body)).content)
    texts = ["", ""]
    for chunk in chunks:
        assert chunk["usage"] is None
        texts[chunk["choices"][0]["index"]] += chunk["choices"][0]["text"]
    assert texts == ["ab", "cd"]
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 6
    assert end == "[DONE]"


async def test_a_second_prompt_that_fails_ends_the_first(serve: Serve) -> None:
    served = await serve({"gates": {1: asyncio.Event()}}, request_timeout=0.05)
    response = await served.client.post(URL, json=completion(["a", "b"]))
    assert response.status_code == 504
    assert not served.engine.open
