"""Chat replies as a whole: fields, finish reasons, refusals by name, limits, clients that leave."""

from __future__ import annotations

import asyncio
import json
import typing
from typing import Any

import pytest
from openai.types.chat import ChatCompletion
from openai.types.chat.completion_create_params import CompletionCreateParamsBase

from tunechat.serve.api.schemas.chat import ChatRequest
from tunechat.serve.contract.errors import EngineFailed, ErrorRecord, Overloaded, Unavailable
from tunechat.tests.serve.api.conftest import Serve
from tunechat.tests.serve.api.harness import CONTEXT, FINGERPRINT, MODEL, call, chat, make_scope

URL = "/v1/chat/completions"
# Fields that are refused by name, with a value that would change the answer.
REFUSED: dict[str, Any] = {
    "audio": {"voice": "alloy", "format": "wav"},
    "function_call": {"name": "f"},
    "functions": [{"name": "f"}],
    "modalities": ["text", "audio"],
    "moderation": {"model": "x"},
    "prediction": {"type": "content", "content": "x"},
    "prompt_cache_options": {"mode": "explicit"},
    "reasoning_effort": "low",
    "service_tier": "flex",
    "store": True,
    "verbosity": "low",
    "web_search_options": {},
}
HARMLESS: dict[str, Any] = {
    "audio": None,
    "function_call": "none",
    "functions": [],
    "logit_bias": None,
    "metadata": {"a": "b"},
    "modalities": ["text"],
    "parallel_tool_calls": True,
    "prompt_cache_key": "k",
    "prompt_cache_options": {"mode": "implicit"},
    "prompt_cache_retention": "24h",
    "reasoning_effort": "none",
    "response_format": {"type": "text"},
    "safety_identifier": "s",
    "service_tier": "auto",
    "store": False,
    "tool_choice": "auto",
    "tools": [],
    "user": "u",
    "verbosity": "medium",
}
# Fields that change the answer as OpenAI says.
HONOURED = {
    "frequency_penalty", "logit_bias", "logprobs", "max_completion_tokens", "max_tokens", "messages", "model", "n",
    "parallel_tool_calls", "presence_penalty", "response_format", "seed", "stop", "stream_options", "temperature",
    "tool_choice", "tools", "top_logprobs", "top_p",
}  # fmt: skip


def test_every_field_of_openais_request_is_decided_on() -> None:
    fields = set(typing.get_type_hints(CompletionCreateParamsBase))
    assert fields <= set(ChatRequest.model_fields), "a new field would be ignored in silence"
    assert fields == HONOURED | (fields & (set(REFUSED) | set(HARMLESS)))


@pytest.mark.parametrize("field", sorted(REFUSED))
async def test_what_is_not_done_is_refused_by_name(serve: Serve, field: str) -> None:
    served = await serve()
    response = await served.client.post(URL, json=chat(**{field: REFUSED[field]}))
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["code"], error["param"]) == ("unsupported", field)
    assert error["type"] == "invalid_request_error"
    assert not served.engine.submitted


async def test_harmless_values_and_strangers_pass(serve: Serve) -> None:
    served = await serve()
    response = await served.client.post(URL, json=chat(**HARMLESS, some_future_field={"x": [1]}))
    assert response.status_code == 200


@pytest.mark.parametrize("field", ["chat_template", "documents", "truncate_prompt_tokens", "use_beam_search"])
async def test_extras_that_would_change_the_answer_are_refused(serve: Serve, field: str) -> None:
    served = await serve()
    response = await served.client.post(URL, json=chat(**{field: "{{ 1 }}"}))
    assert response.json()["error"]["param"] == field


@pytest.mark.parametrize("key", ["chat_template", "tokenize", "tools", "documents", "conversation", "messages"])
async def test_template_arguments_are_not_for_clients(serve: Serve, key: str) -> None:
    served = await serve()
    response = await served.client.post(URL, json=chat(chat_template_kwargs={key: True}))
    assert response.status_code == 400
    assert not served.engine.submitted


async def test_the_reply_has_openais_shape(serve: Serve) -> None:
    served = await serve({"cached_tokens": 3})
    response = await served.client.post(URL, json=chat())
    reply = response.json()
    ChatCompletion.model_validate(reply, strict=False)
    prompt, _ = served.engine.submitted[0]
    assert response.headers["x-request-id"].startswith("req_")
    assert reply["object"] == "chat.completion"
    assert reply["model"] == MODEL
    assert reply["system_fingerprint"] == f"fp_{FINGERPRINT[:12]}"
    assert reply["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello, world", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert reply["usage"] == {
        "prompt_tokens": len(prompt),
        "completion_tokens": 13,
        "total_tokens": len(prompt) + 13,
        "prompt_tokens_details": {"cached_tokens": 3},
    }


async def test_choices_share_the_prompt_in_the_count(serve: Serve) -> None:
    served = await serve({"answers": ["ab", "c", "def"], "cached_tokens": 2})
    reply = (await served.client.post(URL, json=chat(n=3))).json()
    assert [choice["message"]["content"] for choice in reply["choices"]] == ["ab", "c", "def"]
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2]
    prompt, _ = served.engine.submitted[0]
    assert reply["usage"]["prompt_tokens"] == len(prompt)
    assert reply["usage"]["completion_tokens"] == 6 + 3
    assert reply["usage"]["prompt_tokens_details"]["cached_tokens"] == 2


async def test_stop_strings_end_the_answer_and_the_sequence(serve: Serve) -> None:
    served = await serve({"answer": "one two three"})
    reply = (await served.client.post(URL, json=chat(stop=["two", "zzz"]))).json()
    assert reply["choices"][0]["message"]["content"] == "one "
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert reply["usage"]["completion_tokens"] == len("one two")
    assert served.engine.aborted == served.engine.sequences
    assert not served.engine.open


async def test_stop_strings_can_be_kept(serve: Serve) -> None:
    served = await serve({"answer": "one two three"})
    reply = (await served.client.post(URL, json=chat(stop="two", include_stop_str_in_output=True))).json()
    assert reply["choices"][0]["message"]["content"] == "one two"


async def test_logprobs_are_in_step_with_the_text(serve: Serve) -> None:
    served = await serve({"answer": "Hé!"})
    reply = (await served.client.post(URL, json=chat(logprobs=True, top_logprobs=2))).json()
    entries = reply["choices"][0]["logprobs"]["content"]
    assert bytes(byte for entry in entries for byte in entry["bytes"]).decode() == "Hé!"
    assert [len(entry["top_logprobs"]) for entry in entries] == [2] * 4
    assert entries[0]["token"] == "H"
    assert entries[0]["top_logprobs"][0]["logprob"] == entries[0]["logprob"]


async def test_roles_and_parts_reach_the_template(serve: Serve) -> None:
    served = await serve()
    messages = [
        {"role": "developer", "content": "Be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": "Ann"},
        {"role": "assistant", "content": None},
        {"role": "tool", "content": "42", "tool_call_id": "x"},
    ]
    response = await served.client.post(URL, json={"model": MODEL, "messages": messages})
    assert response.status_code == 200
    prompt, _ = served.engine.submitted[0]
    rendered = served.engine.text.decode(prompt, skip_special=False)
    assert rendered.startswith("<|im_start|>system\nBe brief<|im_end|>")
    assert "user\na\nb<|im_end|>" in rendered
    assert rendered.endswith("<|im_start|>assistant\n")


async def test_the_last_message_can_be_continued_and_echoed(serve: Serve) -> None:
    served = await serve({"answer": " world"})
    messages = [{"role": "user", "content": "Say it"}, {"role": "assistant", "content": "Hello"}]
    body = {"model": MODEL, "messages": messages, "continue_final_message": True}
    assert (await served.client.post(URL, json=body)).json()["choices"][0]["message"]["content"] == " world"
    echoed = (await served.client.post(URL, json=body | {"echo": True})).json()
    assert echoed["choices"][0]["message"]["content"] == "Hello world"
    prompt, _ = served.engine.submitted[0]
    assert served.engine.text.decode(prompt, skip_special=False).endswith("<|im_start|>assistant\nHello")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"echo": True}, "echo"),
        ({"continue_final_message": True, "add_generation_prompt": True}, "continue_final_message"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"best_of": 2}, "best_of"),
    ],
)
async def test_fields_that_contradict_each_other_are_refused(serve: Serve, fields: Any, param: str) -> None:
    served = await serve()
    response = await served.client.post(URL, json=chat(**fields))
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


async def test_both_names_of_the_token_limit_work(serve: Serve) -> None:
    served = await serve()
    for fields in ({"max_tokens": 3}, {"max_completion_tokens": 3}, {"max_tokens": 3, "max_completion_tokens": 3}):
        reply = (await served.client.post(URL, json=chat(**fields))).json()
        assert reply["choices"][0]["finish_reason"] == "length"
        assert reply["usage"]["completion_tokens"] == 3


async def test_the_context_is_never_exceeded_and_nothing_is_cut(serve: Serve) -> None:
    served = await serve()
    overhead = len(served.engine.text.encode_chat([{"role": "user", "content": ""}]))
    room = CONTEXT - overhead
    for length, limit, status in (
        (room - 1, None, 200), (room, None, 400), (room + 1, None, 400), (10 * room, 1, 400),
        (room - 5, 5, 200), (room - 5, 6, 400), (room - 5, 4, 200),
    ):  # fmt: skip
        response = await served.client.post(URL, json=chat("x" * length, max_tokens=limit))
        assert response.status_code == status, (length, limit)
        if status == 400:
            error = response.json()["error"]
            assert error["code"] == "context_length_exceeded"
            assert str(CONTEXT) in error["message"]
            assert str(overhead + length) in error["message"]


async def test_a_small_cache_bounds_the_context(serve: Serve) -> None:
    served = await serve({"blocks": 4})
    await served.client.post(URL, json=chat())
    prompt, params = served.engine.submitted[0]
    assert len(prompt) + params.max_tokens == 4 * 16


@pytest.mark.parametrize("content", ["", "   ", "\n", "\x00", "\ud7ff", "�"])
async def test_odd_content_has_a_defined_answer(serve: Serve, content: str) -> None:
    served = await serve()
    assert (await served.client.post(URL, json=chat(content))).status_code == 200


async def test_a_system_message_alone_will_do(serve: Serve) -> None:
    served = await serve()
    body = {"model": MODEL, "messages": [{"role": "system", "content": "x"}]}
    assert (await served.client.post(URL, json=body)).status_code == 200


async def test_unknown_models_are_not_found(serve: Serve) -> None:
    served = await serve(model_aliases=("org/Tiny",))
    assert (await served.client.post(URL, json=chat() | {"model": "org/Tiny"})).json()["model"] == MODEL
    for name in ("other", "TINY", "../tiny", "tiny "):
        response = await served.client.post(URL, json=chat() | {"model": name})
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "model_not_found"
        assert response.json()["error"]["param"] == "model"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("refusal", "status", "code", "retry"),
    [
        (Overloaded("full", retry_after=7), 429, "overloaded", "7"),
        (Unavailable("restarting", retry_after=5), 503, "unavailable", "5"),
        (EngineFailed("dead"), 503, "engine_failed", "2"),
        (RuntimeError("/home/secret/file.py"), 500, "internal_error", None),
    ],
)
async def test_refusals_keep_their_status(
    serve: Serve, refusal: Exception, status: int, code: str, retry: str | None, stream: bool
) -> None:
    served = await serve({"refusal": refusal})
    response = await served.client.post(URL, json=chat(stream=stream))
    assert response.status_code == status
    assert response.json()["error"]["code"] == code
    assert response.headers.get("retry-after") == retry


@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_before_the_first_token_keeps_its_status(serve: Serve, stream: bool) -> None:
    served = await serve({"faults": {0: Overloaded("full", retry_after=3)}})
    response = await served.client.post(URL, json=chat(stream=stream))
    assert response.status_code == 429
    assert response.headers["retry-after"] == "3"


async def test_out_of_memory_is_this_requests_own_failure(serve: Serve) -> None:
    record = ErrorRecord(code="out_of_memory", message="no room in 0x7f00deadbeef", http_status=503, retry_after=4)
    served = await serve({"faults": {2: record}})
    response = await served.client.post(URL, json=chat())
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "out_of_memory"
    assert response.headers["retry-after"] == "4"


async def test_one_failing_choice_ends_the_others(serve: Serve) -> None:
    gate = asyncio.Event()
    served = await serve({"gates": {3: gate}, "faults": {2: EngineFailed("dead")}})
    assert (await served.client.post(URL, json=chat(n=4))).status_code == 503
    assert not served.engine.open


async def test_a_client_that_leaves_frees_the_engine(serve: Serve) -> None:
    for step in (0, 3):
        gate, leave = asyncio.Event(), asyncio.Event()
        served = await serve({"gates": {step: gate}})
        scope = make_scope("POST", URL, {"content-type": "application/json"})
        request = asyncio.create_task(call(served.app, scope, json.dumps(chat(n=2)).encode(), leave=leave))
        await served.engine.until_open(2)
        leave.set()
        answer = await request
        assert answer.status == 0
        assert sorted(served.engine.aborted) == sorted(served.engine.sequences)


async def test_an_answer_that_takes_too_long_is_ended(serve: Serve) -> None:
    served = await serve({"gates": {3: asyncio.Event()}}, request_timeout=0.05)
    response = await served.client.post(URL, json=chat())
    assert response.status_code == 504
    assert not served.engine.open
