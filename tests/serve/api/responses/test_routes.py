"""POST /v1/responses over HTTP: replies and streams, what the model reads, and refusals that name the field."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer

from tunechat.serve.contract.errors import ErrorRecord
from tunechat.tests.serve.api.responses.checked import ask, prompt_of, refused, stream, whole
from tunechat.tests.serve.api.responses.conftest import Respond

PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS: list[dict[str, Any]] = [
    {"type": "function", "name": "weather", "description": "Tells it.", "parameters": PARAMETERS},
    {"type": "function", "name": "now"},
]
WEATHER = '<tool_call>\n{"name": "weather", "arguments": {"city": "Pa\\"r<is"}}\n</tool_call>'
NOW = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
BOTH = f"Let me see.\n{WEATHER}\n{NOW}"


async def test_a_whole_reply(respond: Respond) -> None:
    served = await respond("Hello")
    reply = await whole(served, instructions="Be brief.", metadata={"a": "b"}, temperature=0.5, max_output_tokens=99)
    assert reply.output_text == "Hello"
    assert reply.id.startswith("resp_")
    assert (reply.status, reply.error, reply.incomplete_details) == ("completed", None, None)
    assert (reply.instructions, reply.metadata, reply.temperature) == ("Be brief.", {"a": "b"}, 0.5)
    assert reply.usage is not None
    assert (reply.usage.output_tokens, reply.usage.total_tokens) == (6, reply.usage.input_tokens + 6)
    (item,) = reply.output
    assert (item.type, item.status, item.id[:4]) == ("message", "completed", "msg_")
    assert "system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>" in prompt_of(served)
    params = served.engine.submitted[0][1]
    assert (params.temperature, params.max_tokens) == (0.5, 99)


async def test_cached_tokens_are_told(respond: Respond) -> None:
    reply = await whole(await respond(engine={"cached_tokens": 3}))
    assert reply.usage is not None
    assert reply.usage.input_tokens_details.cached_tokens == 3


@pytest.mark.parametrize("chunk", [1, 7, 1000])
async def test_text_and_calls_as_events(respond: Respond, chunk: int) -> None:
    events = await stream(await respond(BOTH, engine={"chunk": chunk}), tools=TOOLS)
    kinds = [kind.removeprefix("response.") for kind, _ in itertools.groupby(event["type"] for event in events)]
    message = ["output_item.added", "content_part.added", "output_text.delta", "output_text.done"]
    call = ["output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done"]
    assert kinds == [
        *("created", "in_progress"),
        *message,
        *("content_part.done", "output_item.done"),
        *call,
        *call,
        "completed",
    ]
    response = events[-1]["response"]
    text, *calls = response["output"]
    assert text["content"][0]["text"] == "Let me see."
    assert [(one["name"], json.loads(one["arguments"])) for one in calls] == [
        ("weather", {"city": 'Pa"r<is'}),
        ("now", {}),
    ]
    assert len({one["call_id"] for one in calls} | {one["id"] for one in calls}) == 4
    assert all(one["call_id"].startswith("call_") and one["id"].startswith("fc_") for one in calls)


async def test_the_whole_reply_has_the_streams_items(respond: Respond) -> None:
    served = await respond(BOTH, BOTH)
    told = (await stream(served, tools=TOOLS))[-1]["response"]
    reply = await whole(served, tools=TOOLS)
    assert [item["type"] for item in told["output"]] == [item.type for item in reply.output]
    assert [tool.name for tool in reply.tools if tool.type == "function"] == ["weather", "now"]
    assert (reply.parallel_tool_calls, reply.tool_choice) == (True, "auto")


async def test_the_limit_makes_it_incomplete(respond: Respond) -> None:
    served = await respond(BOTH, BOTH)
    events = await stream(served, tools=TOOLS, max_output_tokens=60)
    assert events[-1]["type"] == "response.incomplete"
    response = events[-1]["response"]
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert [item["status"] for item in response["output"]] == ["completed", "incomplete"]
    reply = await whole(served, tools=TOOLS, max_output_tokens=5)
    assert (reply.status, reply.output_text) == ("incomplete", "Let m")


async def test_a_model_that_says_nothing_gives_an_empty_message(respond: Respond) -> None:
    reply = await whole(await respond(""))
    assert [item.type for item in reply.output] == ["message"]
    assert reply.output_text == ""


async def test_an_error_in_the_stream_is_its_last_event(respond: Respond) -> None:
    fault = ErrorRecord(code="engine_failed", message="The engine died.", http_status=503)
    served = await respond("Hello", engine={"faults": {3: fault}, "chunk": 1})
    events = await stream(served)
    assert events[-1]["type"] == "response.failed"
    response = events[-1]["response"]
    assert response["error"] == {"code": "server_error", "message": "The engine died. (engine_failed)"}
    assert response["output"][0]["content"][0]["text"] == "Hel"
    assert response["output"][0]["status"] == "incomplete"
    # What the client was told has failed is not kept.
    assert (await served.client.get(f"/v1/responses/{response['id']}")).status_code == 404


async def test_an_error_before_the_first_token_is_a_plain_one(respond: Respond) -> None:
    fault = ErrorRecord(code="engine_failed", message="The engine died.", http_status=503)
    served = await respond(engine={"faults": {0: fault}})
    for streamed in (False, True):
        response = await served.client.post("/v1/responses", json=ask(stream=streamed))
        assert (response.status_code, response.json()["error"]["code"]) == (503, "engine_failed")


async def test_log_probabilities(respond: Respond) -> None:
    served = await respond("Hey", "Hey")
    asked = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    events = await stream(served, **asked)
    deltas = [one for event in events if event["type"] == "response.output_text.delta" for one in event["logprobs"]]
    assert "".join(one["token"] for one in deltas) == "Hey"
    assert all(len(one["top_logprobs"]) == 2 for one in deltas)
    part = (await whole(served, **asked)).output[0].content[0]  # type: ignore[union-attr]
    assert [one.token for one in part.logprobs or []] == ["H", "e", "y"]  # type: ignore[union-attr]


def allows(grammar: str, text: str) -> bool:
    matcher = LLMatcher(LLTokenizer("byte"), grammar)
    assert not matcher.get_error()
    return matcher.try_consume_tokens(list(text.encode())) == len(text) and matcher.is_accepting()


@pytest.mark.parametrize(
    ("fields", "right", "wrong"),
    [
        ({"tools": TOOLS}, ["No.", WEATHER], [NOW.replace("{}", "[]")]),
        ({"tools": TOOLS, "tool_choice": "required"}, [WEATHER], ["No."]),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "name": "now"}}, [NOW], ["No.", WEATHER]),
        (
            {
                "tools": TOOLS,
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "auto",
                    "tools": [{"type": "function", "name": "now"}],
                },
            },
            ["No.", NOW],
            [WEATHER],
        ),
        ({"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False}, [NOW], [f"{NOW}\n{NOW}"]),
        ({"text": {"format": {"type": "json_object"}}}, ['{"a": 1}'], ["No."]),
        (
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": PARAMETERS, "strict": True}}},
            ['{"city": "Oslo"}'],
            ['{"a": 1}'],
        ),
        ({"structured_outputs": {"choice": ["yes", "no"]}}, ["yes"], ["maybe"]),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else "",
)
async def test_what_may_be_written(
    respond: Respond, fields: dict[str, Any], right: list[str], wrong: list[str]
) -> None:
    served = await respond(right[0])
    reply = await whole(served, **fields)
    grammar = served.engine.submitted[0][1].grammar
    assert [text for text in right if not allows(grammar, text)] == []
    assert [text for text in wrong if allows(grammar, text)] == []
    assert reply.model_dump(exclude_unset=True)["tool_choice"] == fields.get("tool_choice", "auto")


async def test_any_text_is_allowed_by_default(respond: Respond) -> None:
    served = await respond()
    await whole(served, text={"format": {"type": "text"}}, tools=[])
    assert served.engine.submitted[0][1].grammar == ""


async def test_our_own_sampling_fields_hold(respond: Respond) -> None:
    served = await respond("Hello")
    reply = await whole(served, seed=7, top_k=5, min_p=0.1, stop="l", cache_salt="s")
    assert reply.output_text == "He"
    params = served.engine.submitted[0][1]
    assert (params.seed, params.top_k, params.min_p) == (7, 5, 0.1)
    assert served.engine.salts[0] != ""


MESSAGE = {"type": "message", "role": "user", "content": "x"}
CALL = {"type": "function_call", "call_id": "c", "name": "now", "arguments": "{}"}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "input"),
    ({"input": []}, "input"),
    ({"input": 1}, "input"),
    ({"input": [{"role": "user"}]}, "input[0].content"),
    ({"input": [MESSAGE, {"type": "computer_call", "id": "x"}]}, "input[1]"),
    ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
    ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].type"),
    ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
    ({"input": [MESSAGE, {"type": "function_call_output", "call_id": "c", "output": "x"}]}, "input[1].call_id"),
    ({"input": [CALL | {"arguments": "["}]}, "input[0].arguments"),
    ({"input": [MESSAGE, CALL, CALL | {"arguments": "[1]"}]}, "input[2].arguments"),
    ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].id"),
    (
        {"input": [{"type": "mcp_call", "server_label": "other", "name": "x", "arguments": "{}"}]},
        "input[0].server_label",
    ),
    ({"previous_response_id": "resp_1"}, "previous_response_id"),
    ({"input": "x", "tools": [{"type": "web_search"}]}, "tools[0].type"),
    ({"input": "x", "tools": [*TOOLS, {"type": "local_shell"}]}, "tools[2].type"),
    ({"input": "x", "tools": [{"type": "custom", "name": "x"}]}, "tools[0].type"),
    ({"input": "x", "tools": [{"type": "image_generation"}]}, "tools[0].type"),
    ({"input": "x", "tools": [{"type": "tunechat", "name": "calculate"}]}, "tools[0].type"),
    ({"input": "x", "tools": [{"type": "function", "function": {"name": "x"}}]}, "tools[0].name"),
    ({"input": "x", "tools": [{"type": "function", "name": "a b"}]}, "tools[0].name"),
    ({"input": "x", "tools": [TOOLS[1], TOOLS[1]]}, "tools[1].name"),
    (
        {"input": "x", "tools": [{"type": "namespace", "name": "n", "tools": [{"type": "x"}]}]},
        "tools[0].tools[0].type",
    ),
    (
        {
            "input": "x",
            "tools": [
                {"type": "web_search", "external_web_access": False},
                {"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "a b"}]},
            ],
        },
        "tools[1].tools[0].name",
    ),
    (
        {
            "input": "x",
            "tools": [
                {"type": "function", "name": "f", "strict": True, "parameters": {"properties": {"a": {"not": {}}}}}
            ],
        },
        "tools[0].parameters.properties.a.not",
    ),
    ({"input": "x", "tool_choice": "required"}, "tool_choice"),
    ({"input": "x", "tools": TOOLS, "tool_choice": {"type": "function"}}, "tool_choice.name"),
    ({"input": "x", "tools": TOOLS, "tool_choice": {"type": "function", "name": "other"}}, "tool_choice"),
    ({"input": "x", "tools": TOOLS, "tool_choice": {"type": "file_search"}}, "tool_choice.type"),
    (
        {"input": "x", "tools": TOOLS, "tool_choice": {"type": "allowed_tools", "mode": "x", "tools": []}},
        "tool_choice.mode",
    ),
    (
        {
            "input": "x",
            "tools": TOOLS,
            "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "mcp"}]},
        },
        "tool_choice.tools[0].type",
    ),
    ({"input": "x", "text": {"format": {"type": "yaml"}}}, "text.format.type"),
    ({"input": "x", "text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
    (
        {"input": "x", "text": {"format": {"type": "json_schema", "schema": {"properties": {"a": {"not": {}}}}}}},
        "text.format.schema.properties.a.not",
    ),
    ({"input": "x", "text": {"verbosity": "low"}}, "text.verbosity"),
    ({"input": "x", "reasoning": {"effort": "high"}}, "reasoning.effort"),
    ({"input": "x", "reasoning": {"summary": "detailed"}}, "reasoning.summary"),
    ({"input": "x", "truncation": "auto"}, "truncation"),
    ({"input": "x", "conversation": "conv_1"}, "conversation"),
    ({"input": "x", "prompt": {"id": "p"}}, "prompt"),
    ({"input": "x", "include": ["everything"]}, "include[0]"),
    ({"input": "x", "max_output_tokens": 0}, "max_output_tokens"),
    ({"input": "x", "max_tokens": 5}, "max_tokens"),
    ({"input": "x", "max_output_tokens": 1 << 20}, "input"),
    ({"input": "x" * (1 << 14)}, "input"),
    ({"input": "x", "top_logprobs": 21}, "top_logprobs"),
    ({"input": "x", "top_logprobs": 2, "tools": TOOLS}, "include"),
    ({"input": "x", "metadata": {"a": "b" * 513}}, "metadata.a"),
    ({"input": "x", "n": 2}, "n"),
    ({"input": "x", "messages": []}, "messages"),
    ({"input": "x", "background": True, "stream": True}, "stream"),
    ({"input": "x", "background": True, "store": False}, "store"),
]


async def test_what_is_wrong_is_named(respond: Respond) -> None:
    served = await respond()
    for fields, param in WRONG:
        error = await refused(served, **fields)
        assert (error["param"], bool(error["message"])) == (param, True), fields
    assert not served.engine.submitted


async def test_a_grammar_that_the_engine_refuses_is_named_by_our_field(respond: Respond) -> None:
    fault = ErrorRecord(code="invalid_grammar", message="No.", http_status=400)
    for fields, param in (({"tools": TOOLS}, "tools"), ({"text": {"format": {"type": "json_object"}}}, "text.format")):
        served = await respond(engine={"faults": {0: fault}})
        for streamed in (False, True):
            error = await refused(served, input="x", stream=streamed, **fields)
            assert (error["param"], error["code"]) == (param, "invalid_grammar")


async def test_an_unknown_model_is_404(respond: Respond) -> None:
    assert (await refused(await respond(), 404, input="x", model="other"))["code"] == "model_not_found"
