"""The official client of Anthropic, unmodified, against the real server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import jsonschema
import pytest

from tunechat.tests.blackbox.server import CONTROL, MODEL, Server, refuse_leaks

pytestmark = pytest.mark.usefixtures("healthy_at_end")

# Newer clients know no temperature.
GREEDY = {"temperature": 0}
ASK: dict[str, Any] = {
    "model": MODEL,
    "max_tokens": CONTROL["max_tokens"],
    "messages": CONTROL["messages"],
    "extra_body": GREEDY,
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 24}, "unit": {"enum": ["celsius", "fahrenheit"]}},
    "required": ["city", "unit"],
    "additionalProperties": False,
}
TOOLS: Any = [{"name": "get_weather", "description": "Tells the weather.", "input_schema": SCHEMA}]
WEATHER: dict[str, Any] = {
    "model": MODEL,
    "max_tokens": 200,
    "extra_body": GREEDY,
    "tools": TOOLS,
    "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
}


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[anthropic.Anthropic]:
    http = anthropic.DefaultHttpxClient(event_hooks={"response": [refuse_leaks]}, trust_env=False)
    with anthropic.Anthropic(base_url=server.url, api_key="any", max_retries=0, http_client=http) as client:
        yield client


def text_of(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def test_an_answer_is_the_same_in_every_dialect(client: anthropic.Anthropic, golden: str) -> None:
    message = client.messages.create(**ASK)
    assert (text_of(message), message.model, message.stop_reason) == (golden, MODEL, "max_tokens")
    with client.messages.stream(**ASK) as stream:
        assert "".join(stream.text_stream) == golden
        final = stream.get_final_message()
    assert (final.stop_reason, final.usage.output_tokens) == ("max_tokens", ASK["max_tokens"])


def test_counts_are_what_an_answer_costs_and_the_cache_is_told(client: anthropic.Anthropic) -> None:
    body = {**WEATHER, "system": [{"type": "text", "text": "You know the weather of every city. " * 12}]}
    counted = client.messages.count_tokens(**{key: body[key] for key in ("model", "system", "tools", "messages")})
    usages = [client.messages.create(**{**body, "max_tokens": 2}).usage for _ in range(2)]
    for usage in usages:
        assert usage.input_tokens + (usage.cache_read_input_tokens or 0) == counted.input_tokens
    assert (usages[1].cache_read_input_tokens or 0) > 100


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "get_weather"}], ids=["any", "named"])
def test_a_call_is_valid_and_its_result_is_answered(client: anthropic.Anthropic, choice: Any) -> None:
    choice = {**choice, "disable_parallel_tool_use": True}
    message = client.messages.create(**WEATHER, tool_choice=choice)
    (call,) = message.content
    assert call.type == "tool_use" and call.name == "get_weather" and call.id.startswith("toolu_")
    assert message.stop_reason == "tool_use"
    jsonschema.validate(call.input, SCHEMA)
    with client.messages.stream(**WEATHER, tool_choice=choice) as stream:
        (streamed,) = stream.get_final_message().content
    assert streamed.type == "tool_use" and streamed.input == call.input
    turns = [
        *WEATHER["messages"],
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "18 degrees, sunny"}]},
    ]
    answer = client.messages.create(**{**WEATHER, "messages": turns, "max_tokens": 24}, tool_choice={"type": "none"})
    assert text_of(answer)


def test_a_stop_sequence_is_told(client: anthropic.Anthropic, golden: str) -> None:
    stop = golden.split()[-1]
    message = client.messages.create(**ASK, stop_sequences=["never said", stop])
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", stop)
    assert text_of(message) == golden.partition(stop)[0]


def test_a_limit_beyond_the_context_is_no_error(client: anthropic.Anthropic) -> None:
    message = client.messages.create(**{**ASK, "max_tokens": 20_000}, stop_sequences=[".", "\n"])
    assert message.stop_reason == "stop_sequence"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"model": "claude-none"}, anthropic.NotFoundError, "claude-none"),
        ({"extra_body": {"temperature": 3}}, anthropic.BadRequestError, "temperature"),
        ({"messages": [{"role": "user", "content": "x " * 9000}]}, anthropic.BadRequestError, "prompt is too long"),
        (
            {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
            anthropic.BadRequestError,
            "tools[0].type",
        ),
    ],
    ids=["model", "number", "length", "tool"],
)
def test_errors_are_the_clients_own(
    client: anthropic.Anthropic, changes: Any, kind: type[anthropic.APIStatusError], words: str, stream: bool
) -> None:
    with pytest.raises(kind) as refused:
        client.messages.create(**{**ASK, **changes, "stream": stream})
    assert refused.value.api_message is not None and words in refused.value.api_message
    assert refused.value.request_id is not None and refused.value.request_id.startswith("req_")


def test_models(client: anthropic.Anthropic) -> None:
    first, *_ = client.models.list()
    assert (first.id, first.type) == (MODEL, "model")
    assert client.models.retrieve(MODEL) == first


def test_a_stream_that_is_closed_frees_its_memory(client: anthropic.Anthropic, server: Server) -> None:
    with client.messages.stream(**{**ASK, "max_tokens": 2000}) as stream:
        next(iter(stream.text_stream))
    server.wait_idle(limit=5)
