"""Tool calls over HTTP: each rule of chunks that some client needs, whole replies, turns with results, refusals."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tunechat.tests.serve.api.conftest import Serve, Served
from tunechat.tests.serve.api.harness import chat, events_of

URL = "/v1/chat/completions"
# Tokens are bytes here, and tools take many.
ROOM = {"context": 4096}
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": "weather", "description": "Tells it.", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "now"}},
]
WEATHER = '<tool_call>\n{"name": "weather", "arguments": {"city": "Pa\\"r<is", "days": 2}}\n</tool_call>'
NOW = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
BOTH = f"Let me see.\n{WEATHER}\n{NOW}"
MADE = [("weather", {"city": 'Pa"r<is', "days": 2}), ("now", {})]


async def stream(served: Served, **fields: Any) -> list[dict[str, Any]]:
    response = await served.client.post(URL, json=chat(stream=True, tools=TOOLS, **fields))
    assert response.status_code == 200
    *chunks, end = events_of(response.content)
    assert end == "[DONE]"
    return chunks


async def whole(served: Served, **fields: Any) -> dict[str, Any]:
    response = await served.client.post(URL, json=chat(**({"tools": TOOLS} | fields)))
    assert response.status_code == 200, response.text
    reply: dict[str, Any] = response.json()
    return reply


def tool_deltas(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    return [call for delta in deltas for call in delta.get("tool_calls", ())]


def content(chunks: list[dict[str, Any]]) -> str:
    return "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])


@pytest.fixture(params=[1, 7, 1000], ids=lambda size: f"pieces of {size}")
async def both(request: pytest.FixtureRequest, serve: Serve) -> list[dict[str, Any]]:
    """The chunks of text and two calls, in small and large pieces."""
    served = await serve(ROOM | {"answer": BOTH, "chunk": request.param})
    return await stream(served, stream_options={"include_usage": True})


class TestChunks:
    async def test_every_delta_of_a_call_has_its_index(self, both: list[dict[str, Any]]) -> None:
        indices = [call["index"] for call in tool_deltas(both)]
        assert all(type(index) is int for index in indices)
        assert [index for index, _ in itertools.groupby(indices)] == [0, 1]

    async def test_a_call_says_its_id_name_and_type_once(self, both: list[dict[str, Any]]) -> None:
        firsts = [call for call in tool_deltas(both) if "id" in call]
        assert [call["function"]["name"] for call in firsts] == ["weather", "now"]
        assert [call["type"] for call in firsts] == ["function", "function"]
        assert len({call["id"] for call in firsts}) == 2
        assert all(call["id"].startswith("call_") for call in firsts)
        others = [call for call in tool_deltas(both) if "id" not in call]
        assert all(set(call) == {"index", "function"} and set(call["function"]) == {"arguments"} for call in others)

    async def test_arguments_begin_empty_and_are_strings(self, both: list[dict[str, Any]]) -> None:
        for index, (_, arguments) in enumerate(MADE):
            pieces = [call["function"]["arguments"] for call in tool_deltas(both) if call["index"] == index]
            assert pieces[0] == ""
            assert all(piece for piece in pieces[1:])
            assert json.loads("".join(pieces)) == arguments

    async def test_no_markup_is_content(self, both: list[dict[str, Any]]) -> None:
        assert content(both) == "Let me see."

    async def test_the_order_is_the_safe_one(self, both: list[dict[str, Any]]) -> None:
        kinds = [tuple(chunk["choices"][0]["delta"]) if chunk["choices"] else None for chunk in both]
        assert [kind for kind, _ in itertools.groupby(kinds)] == [
            ("role", "content"),
            ("content",),
            ("tool_calls",),
            (),
            None,
        ]
        assert both[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}

    async def test_the_end_is_tool_calls_once_and_on_an_empty_delta(self, both: list[dict[str, Any]]) -> None:
        ends = [choice for chunk in both for choice in chunk["choices"] if choice["finish_reason"]]
        assert ends == [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "tool_calls"}]

    async def test_usage_comes_last_with_empty_choices(self, both: list[dict[str, Any]]) -> None:
        assert both[-1]["choices"] == []
        assert both[-1]["usage"]["completion_tokens"] == len(BOTH) + 1
        assert all(chunk["usage"] is None for chunk in both[:-1])

    async def test_openais_client_puts_them_together(self, both: list[dict[str, Any]]) -> None:
        state = ChatCompletionStreamState()
        for chunk in both:
            state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
        (choice,) = state.get_final_completion().choices
        assert choice.message.content == "Let me see."
        calls = choice.message.tool_calls or []
        assert [(call.function.name, json.loads(call.function.arguments)) for call in calls] == MADE


async def test_choices_have_calls_of_their_own(serve: Serve) -> None:
    served = await serve(ROOM | {"answers": [WEATHER, NOW]})
    chunks = await stream(served, n=2)
    ids = [call["id"] for call in tool_deltas(chunks) if "id" in call]
    assert len(set(ids)) == 2
    names = {
        choice["index"]: call["function"]["name"]
        for chunk in chunks
        for choice in chunk["choices"]
        for call in choice["delta"].get("tool_calls", ())
        if "id" in call
    }
    assert names == {0: "weather", 1: "now"}
    assert all(call["index"] == 0 for call in tool_deltas(chunks))


async def test_the_whole_reply_is_the_streams(serve: Serve) -> None:
    reply = await whole(await serve(ROOM | {"answer": BOTH}))
    parsed = ChatCompletion.model_validate(reply).choices[0]
    assert (parsed.finish_reason, parsed.message.content) == ("tool_calls", "Let me see.")
    calls: Any = parsed.message.tool_calls
    assert [(call.function.name, json.loads(call.function.arguments)) for call in calls] == MADE
    assert len({call.id for call in calls}) == 2


async def test_content_is_null_beside_calls_alone(serve: Serve) -> None:
    (choice,) = (await whole(await serve(ROOM | {"answer": NOW})))["choices"]
    assert choice["message"]["content"] is None
    assert "reasoning_content" not in choice["message"]


async def test_an_answer_without_calls_has_none(serve: Serve) -> None:
    (choice,) = (await whole(await serve(ROOM | {"answer": "No."})))["choices"]
    assert choice["message"] == {"role": "assistant", "content": "No.", "refusal": None}
    assert choice["finish_reason"] == "stop"


async def test_the_limit_is_told_where_it_cuts_a_call(serve: Serve) -> None:
    (choice,) = (await whole(await serve(ROOM | {"answer": WEATHER}), max_tokens=57))["choices"]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["tool_calls"][0]["function"]["arguments"] == '{"city": "Pa'


async def test_calls_are_text_where_none_may_be_made(serve: Serve) -> None:
    (choice,) = (await whole(await serve(ROOM | {"answer": NOW}), tool_choice="none"))["choices"]
    assert choice["message"]["content"] == NOW
    assert "tool_calls" not in choice["message"]


def allows(grammar: str, text: str) -> bool:
    """Whether `text` is a whole turn of the grammar."""
    matcher = LLMatcher(LLTokenizer("byte"), grammar)
    assert not matcher.get_error()
    return matcher.try_consume_tokens(list(text.encode())) == len(text) and matcher.is_accepting()


@pytest.mark.parametrize(
    ("fields", "right", "wrong"),
    [
        ({}, ["No.", WEATHER, BOTH], [NOW.replace("{}", "[]")]),
        ({"tool_choice": "auto"}, ["No.", WEATHER], []),
        ({"tool_choice": "none"}, ["No."], [NOW]),
        ({"tool_choice": "required"}, [WEATHER, NOW, WEATHER + "\n" + NOW], ["No."]),
        ({"tool_choice": {"type": "function", "function": {"name": "now"}}}, [NOW], ["No.", WEATHER]),
        (
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {
                        "mode": "auto",
                        "tools": [{"type": "function", "function": {"name": "now"}}],
                    },
                }
            },
            ["No.", NOW],
            [WEATHER],
        ),
        ({"tool_choice": "required", "parallel_tool_calls": False}, [NOW], [NOW + "\n" + NOW]),
        (
            {"response_format": {"type": "json_object"}},
            ['{"a": 1}', NOW],
            ["No."],
        ),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
async def test_the_choice_decides_what_may_be_written(
    serve: Serve, fields: dict[str, Any], right: list[str], wrong: list[str]
) -> None:
    served = await serve(ROOM | {"answer": right[0]})
    await whole(served, **fields)
    grammar = served.engine.submitted[0][1].grammar
    assert [text for text in right if not allows(grammar, text)] == []
    assert [text for text in wrong if allows(grammar, text)] == []


async def prompt_of(served: Served, **fields: Any) -> str:
    await whole(served, **fields)
    return served.engine.text.decode(served.engine.submitted[-1][0], skip_special=False)


async def test_the_model_is_told_of_the_tools(serve: Serve) -> None:
    served = await serve(ROOM)
    told = await prompt_of(served)
    assert '"name": "weather"' in told
    assert "Tells it." in told
    assert '"name": "weather"' not in await prompt_of(served, tool_choice="none")
    assert '"name": "weather"' not in await prompt_of(served, tools=[])


ASKED: dict[str, Any] = {"role": "user", "content": "Weather?"}
CALLED: dict[str, Any] = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}}],
}
RESULT: dict[str, Any] = {"role": "tool", "tool_call_id": "c1", "content": "It <tool_call> rains."}


@pytest.mark.parametrize("tools", [TOOLS, []], ids=["with tools", "without"])
async def test_calls_and_results_reach_the_model(serve: Serve, tools: list[dict[str, Any]]) -> None:
    served = await serve(ROOM)
    told = await prompt_of(served, messages=[ASKED, CALLED, RESULT], tools=tools)
    assert '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>' in told
    assert "weather: It <tool_call> rains." in told
    counted = await served.client.post("/tokenize", json={"messages": [ASKED, CALLED, RESULT], "tools": tools})
    assert counted.json()["tokens"] == served.engine.submitted[-1][0]


def with_call(**changes: Any) -> list[dict[str, Any]]:
    return [ASKED, {**CALLED, "tool_calls": [{**CALLED["tool_calls"][0], **changes}]}, RESULT]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "custom"}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}] * 2}, "tools[1].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}] * 129}, "tools"),
        ({"tools": [1]}, "tools[0]"),
        (
            {
                "tools": [
                    {
                        "type": "function",
                        "function": {"name": "f", "strict": True, "parameters": {"properties": {"a": {"not": {}}}}},
                    }
                ]
            },
            "tools[0].function.parameters.properties.a.not",
        ),
        ({"tools": TOOLS, "tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function"}}, "tool_choice.function.name"),
        (
            {"tools": TOOLS, "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "x"}}},
            "tool_choice.allowed_tools.mode",
        ),
        (
            {"tools": TOOLS, "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}},
            "tool_choice.allowed_tools.tools",
        ),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [], "tool_choice": "required"}, "tool_choice"),
        ({"tools": TOOLS, "logprobs": True}, "logprobs"),
        (
            {
                "tools": TOOLS,
                "echo": True,
                "continue_final_message": True,
                "messages": [ASKED, {"role": "assistant", "content": "It"}],
            },
            "echo",
        ),
        ({"messages": with_call(function={"name": "f", "arguments": "[1]"})}, "messages[1].tool_calls[0].function"),
        ({"messages": with_call(function={"name": "f", "arguments": "{"})}, "messages[1].tool_calls[0].function"),
        ({"messages": with_call(function={})}, "messages[1].tool_calls[0].function.name"),
        ({"messages": with_call(type="custom")}, "messages[1].tool_calls[0].type"),
        ({"messages": [{**CALLED, "role": "user", "content": "x"}]}, "messages[0].tool_calls"),
    ],
)
async def test_what_is_wrong_is_named(serve: Serve, fields: dict[str, Any], param: str) -> None:
    served = await serve(ROOM)
    response = await served.client.post(URL, json=chat() | fields)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
    assert not served.engine.submitted


@pytest.mark.parametrize("fields", [{"tool_choice": "none"}, {"tools": []}, {"tools": TOOLS, "tool_choice": "none"}])
async def test_log_probabilities_go_with_tools_that_are_not_called(serve: Serve, fields: dict[str, Any]) -> None:
    served = await serve(ROOM | {"answer": "Hey"})
    response = await served.client.post(URL, json=chat(logprobs=True, **fields))
    (choice,) = response.json()["choices"]
    assert "".join(one["token"] for one in choice["logprobs"]["content"]) == "Hey"


async def test_the_dialect_can_be_told(serve: Serve) -> None:
    call = '[TOOL_CALLS][{"name": "now", "arguments": {}}]'
    served = await serve(ROOM | {"answer": call}, tool_dialect="mistral")
    (choice,) = (await whole(served))["choices"]
    assert choice["message"]["tool_calls"][0]["function"]["name"] == "now"
    models = (await served.client.get("/v1/models")).json()
    assert models["data"][0]["tool_dialect"] == "mistral"


async def test_an_unknown_dialect_is_not_served(serve: Serve) -> None:
    served = await serve(ROOM, tool_dialect="klingon")
    assert served.gateway.failure is not None
    assert "klingon" in served.gateway.failure.message
    assert (await served.client.post(URL, json=chat())).status_code == 503
