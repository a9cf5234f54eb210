"""Requests that are refused name their own fields; those that are taken become the chat that means the same."""

from __future__ import annotations

from typing import Any

import pytest

from tunechat.serve.api.body import parse_body
from tunechat.serve.api.encoding import encode_json
from tunechat.serve.api.messages.translation import Chat, as_chat
from tunechat.serve.api.schemas.messages import CountTokensRequest, MessagesRequest
from tunechat.serve.contract.errors import TunechatError
from tunechat.tests.serve.api.conftest import Serve
from tunechat.tests.serve.api.messages.conftest import COUNT_URL, URL, ask

TOOL = {"name": "f", "input_schema": {"type": "object"}}
USE = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "ok"}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "eA=="}}
DOCUMENT = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}}
DEEP: Any = {"type": "object", "properties": {"a": {"not": {}}}}


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(content)}


def assistant(*content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(content)}


def said(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": None}, "max_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"messages": []}, "messages"),
    ({"messages": [user()]}, "messages"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
    ({"messages": [user(said("x"), IMAGE)]}, "messages[0].content[1].type"),
    ({"messages": [user(DOCUMENT)]}, "messages[0].content[0].type"),
    ({"messages": [user({"type": "text"})]}, "messages[0].content[0].text"),
    ({"messages": [user({"type": "text", "text": 1})]}, "messages[0].content[0].text"),
    ({"messages": [user(USE)]}, "messages[0].content[0].type"),
    ({"messages": [user({"type": "thinking", "thinking": "x"})]}, "messages[0].content[0].type"),
    ({"messages": [assistant(RESULT), user(said("x"))]}, "messages[0].content[0].type"),
    ({"messages": [user(said("x")), assistant(USE)]}, "messages[1].content[0]"),
    ({"messages": [assistant({"type": "tool_use", "name": "f", "input": {}})]}, "messages[0].content[0].id"),
    ({"messages": [assistant({"type": "tool_use", "id": "1", "name": "f"})]}, "messages[0].content[0].input"),
    ({"messages": [user({"type": "tool_result"})]}, "messages[0].content[0].tool_use_id"),
    ({"messages": [user({**RESULT, "content": [said("x"), IMAGE]})]}, "messages[0].content[0].content[1].type"),
    ({"messages": [user({**RESULT, "content": [RESULT]})]}, "messages[0].content[0].content[0].type"),
    ({"system": [IMAGE]}, "system[0].type"),
    ({"system": [said("x"), RESULT]}, "system[1].type"),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
    ({"tools": [TOOL, {"type": "bash_20250124", "name": "bash"}]}, "tools[1].type"),
    ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
    ({"tools": [{"input_schema": {}}]}, "tools[0].name"),
    ({"tools": [{**TOOL, "name": "a b"}]}, "tools[0].name"),
    ({"tools": [TOOL, TOOL]}, "tools[1].name"),
    ({"tools": [{**TOOL, "input_schema": {"type": "string"}}]}, "tools[0].input_schema"),
    ({"tools": [{**TOOL, "strict": True, "input_schema": DEEP}]}, "tools[0].input_schema.properties.a.not"),
    ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "tool_choice.name"),
    ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "g"}}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": {"type": "required"}}, "tool_choice.type"),
    ({"tool_choice": {"type": "any"}}, "tool_choice"),
    ({"thinking": {"type": "sometimes"}}, "thinking.type"),
    ({"stop_sequences": ["x"] * 17}, "stop_sequences"),
    ({"stop_sequences": [""]}, "stop_sequences[0]"),
    ({"temperature": 3}, "temperature"),
    ({"top_k": -1}, "top_k"),
    (
        {"output_config": {"format": {"type": "json_schema", "schema": DEEP}}},
        "output_config.format.schema.properties.a.not",
    ),
    ({"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}, "context_management.edits[0].type"),
    ({"mcp_servers": [{"type": "url"}]}, "mcp_servers"),
    ({"container": "c"}, "container"),
    ({"output_format": {"type": "json_schema", "schema": {}}}, "output_format"),
]


@pytest.mark.parametrize(("fields", "param"), REFUSED, ids=[param for _, param in REFUSED])
async def test_what_is_wrong_is_named(serve: Serve, fields: dict[str, Any], param: str) -> None:
    served = await serve({"context": 4096})
    response = await served.client.post(
        URL, json={name: value for name, value in (ask() | fields).items() if value is not None}
    )
    assert response.status_code == 400, response.text
    assert param in response.json()["error"]["message"]
    assert not served.engine.submitted


async def test_counting_refuses_the_same(serve: Serve) -> None:
    served = await serve({"context": 4096})
    for fields, param in REFUSED:
        if param.split(".")[0].split("[")[0] in ("messages", "system", "tools", "tool_choice", "thinking"):
            if "strict" in str(fields):
                continue  # counting makes no grammar
            response = await served.client.post(COUNT_URL, json=ask() | fields)
            assert response.status_code == 400, fields
            assert param in response.json()["error"]["message"]


def chat_of(**fields: Any) -> Chat:
    return as_chat(parse_body(encode_json(ask() | fields), MessagesRequest))


def messages_of(**fields: Any) -> list[dict[str, Any]]:
    return [message.for_template() for message in chat_of(**fields).body.messages]


CALL = {"type": "function", "id": "toolu_1", "function": {"name": "f", "arguments": {"a": 1}}}


def test_blocks_become_turns() -> None:
    talk = [
        user(said("a"), said("b")),
        {"role": "user", "content": "c"},
        assistant(
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "redacted_thinking", "data": "x"},
            said("d"),
            said("e"),
            USE,
        ),
        user(RESULT, {**RESULT, "is_error": True, "content": [said("f"), said("g")]}, said("h")),
        {"role": "system", "content": "now this"},
        user(said("i")),
    ]
    assert messages_of(messages=talk, system=[said("s1"), said("s2")]) == [
        {"role": "system", "content": "s1\ns2"},
        {"role": "user", "content": "a\nb\nc"},
        {"role": "assistant", "content": "de", "reasoning_content": "hm", "tool_calls": [CALL]},
        {"role": "tool", "content": "ok", "tool_call_id": "toolu_1"},
        {"role": "tool", "content": "Error: f\ng", "tool_call_id": "toolu_1"},
        {"role": "user", "content": "h"},
        {"role": "system", "content": "now this"},
        {"role": "user", "content": "i"},
    ]


@pytest.mark.parametrize(
    ("thinking", "thinks"),
    [
        (None, False),
        ({"type": "disabled"}, False),
        ({"type": "adaptive"}, True),
        ({"type": "enabled", "budget_tokens": 2048}, True),
    ],
)
def test_thinking_is_a_switch_of_the_template(thinking: Any, thinks: bool) -> None:
    assert chat_of(thinking=thinking).body.chat_template_kwargs == {"enable_thinking": thinks, "thinking": thinks}


@pytest.mark.parametrize(("effort", "told"), [("low", "low"), ("high", "high"), ("max", "high"), ("xhigh", "high")])
def test_effort_is_told_in_words_that_templates_know(effort: str, told: str) -> None:
    kwargs = chat_of(output_config={"effort": effort}).body.chat_template_kwargs
    assert kwargs is not None and kwargs["reasoning_effort"] == told


@pytest.mark.parametrize(
    ("param", "here"),
    [
        (None, None),
        ("messages[0].content", "system"),
        ("messages[2].tool_calls[0].function", "messages[1].content[1]"),
        ("messages[2].content", "messages[1].content[0]"),
        ("messages[3].content", "messages[2].content[0]"),
        ("messages[9]", "messages"),
        ("messages", "messages"),
        ("tools[3].function.parameters.properties.a", "tools[3].input_schema.properties.a"),
        ("tools[3].function.name", "tools[3].name"),
        ("response_format", "output_config.format"),
        ("response_format.json_schema.schema.items", "output_config.format.schema.items"),
        ("stop", "stop_sequences"),
        ("chat_template_kwargs.enable_thinking", "thinking"),
        ("chat_template_kwargs.reasoning_effort", "output_config.effort"),
        ("continue_final_message", "messages"),
        ("tool_choice.function.name", "tool_choice.name"),
        ("adapters[0].name", "adapters[0].name"),
    ],
)
def test_fields_of_the_chat_are_named_as_the_request_has_them(param: str | None, here: str | None) -> None:
    chat = chat_of(system="s", messages=[user(said("x")), assistant(said("y"), USE), user(RESULT)])
    assert chat.field(param) == here
    error = TunechatError("x", param=param)
    with pytest.raises(TunechatError), chat.named():
        raise error
    assert error.param == here


def test_counting_needs_no_limit() -> None:
    body = parse_body(b'{"model": "m", "messages": [{"role": "user", "content": "x"}]}', CountTokensRequest)
    assert as_chat(body).body.messages[0].text == "x"


async def test_fields_that_change_nothing_are_taken(serve: Serve) -> None:
    served = await serve()
    cached = {"type": "ephemeral", "ttl": "1h"}
    body = ask(
        [{**said("Hi"), "cache_control": cached, "citations": None}],
        system=[{**said("Be kind."), "cache_control": cached}],
        metadata={"user_id": "u"},
        service_tier="auto",
        cache_control=cached,
        context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        mcp_servers=[],
        unheard_of=1,
    )
    assert (await served.client.post(f"{URL}?beta=true", json=body)).status_code == 200
    assert (await served.client.post(f"{COUNT_URL}?beta=true", json=body)).status_code == 200
