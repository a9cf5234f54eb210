"""A session of the shape that Claude Code sends: long system blocks, many tools, thoughts, results, beta headers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tunechat.tests.serve.api.conftest import Serve, Served
from tunechat.tests.serve.api.messages.conftest import EVENT, Connect, prompt_of

MODEL = "claude-local"
CACHED = {"type": "ephemeral"}
HEADERS = {
    "anthropic-version": "2023-06-01",
    "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14,fine-grained-tool-streaming-2025-05-14",
    "anthropic-dangerous-direct-browser-access": "true",
    "authorization": "Bearer the-right-key",
    "x-api-key": "sk-ant-of-somebody-else",
    "x-app": "cli",
    "user-agent": "claude-cli/2.1.0 (external, cli)",
}


def text(content: str, **fields: Any) -> dict[str, Any]:
    return {"type": "text", "text": content, **fields}


def tool(name: str, **properties: Any) -> dict[str, Any]:
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": properties,
        "required": list(properties)[:1],
        "additionalProperties": False,
    }
    return {"name": name, "description": f"Use {name} well. " * 60, "input_schema": schema}


STRING = {"type": "string", "description": "Some text."}
TODOS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "content": {"type": "string", "minLength": 1},
            "status": {"type": "string", "enum": ["pending", "in_progress", "completed"]},
        },
        "required": ["content", "status"],
        "additionalProperties": False,
    },
}
TOOLS = [
    tool("Bash", command=STRING, timeout={"type": "number"}, run_in_background={"type": "boolean"}),
    tool("Read", file_path=STRING, offset={"type": "number"}, limit={"type": "number"}),
    tool(
        "Edit",
        file_path=STRING,
        old_string=STRING,
        new_string=STRING,
        replace_all={"type": "boolean", "default": False},
    ),
    tool("Grep", pattern=STRING, output_mode={"type": "string", "enum": ["content", "files_with_matches", "count"]}),
    tool("TodoWrite", todos=TODOS),
    tool("WebFetch", url={"type": "string", "format": "uri"}, prompt=STRING),
    *(tool(f"mcp__server__tool_{number}", query=STRING) for number in range(12)),
]
TOOLS[-1]["cache_control"] = CACHED
READ = '<tool_call>\n{"name": "Read", "arguments": {"file_path": "/src/main.c", "limit": 20}}\n</tool_call>'


def session(messages: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "model": MODEL,
        "max_tokens": 32_000,
        "stream": True,
        "system": [
            text("You are a coding agent.", cache_control=CACHED),
            text("Be brief. Use the tools. " * 400, cache_control=CACHED),
        ],
        "tools": TOOLS,
        "thinking": {"type": "enabled", "budget_tokens": 31_999},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "metadata": {"user_id": "user_1_account__session_2"},
        "messages": messages,
    }


ASKED = {
    "role": "user",
    "content": [
        text("<system-reminder>\nNo files are open.\n</system-reminder>"),
        text("What is in main.c?", cache_control=CACHED),
    ],
}


async def post(served: Served, path: str, body: dict[str, Any]) -> Any:
    response = await served.client.post(f"/v1/{path}?beta=true", json=body, headers=HEADERS)
    assert response.status_code == 200, response.text
    return response


async def events_of(served: Served, body: dict[str, Any]) -> list[dict[str, Any]]:
    response = await post(served, "messages", body)
    lines = [line for line in response.text.split("\n") if line.startswith("data: ")]
    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    for event in events:
        if event["type"] != "ping":
            EVENT.validate_python(event)
    return events


@pytest.fixture
async def served(serve: Serve) -> Served:
    return await serve(
        {"answers": [f"I will look.\n{READ}", "A main function."], "context": 65_536, "blocks": 4096, "chunk": 16},
        api_keys=("the-right-key",),
        model_aliases=(MODEL,),
    )


async def test_a_turn_with_a_call_and_the_turn_after_it(served: Served) -> None:
    first = session([ASKED])
    counted = (
        await post(
            served,
            "messages/count_tokens",
            {key: first[key] for key in first if key not in ("max_tokens", "stream", "metadata")},
        )
    ).json()
    events = await events_of(served, first)
    assert counted == {"input_tokens": events[0]["message"]["usage"]["input_tokens"]}
    said, call = (event["content_block"] for event in events if event["type"] == "content_block_start")
    assert (said["type"], call["type"], call["name"]) == ("text", "tool_use", "Read")
    assert events[-2]["delta"]["stop_reason"] == "tool_use"
    answer = [
        {"type": "thinking", "thinking": "Look first.", "signature": "c2ln"},
        text("I will look."),
        {**call, "input": {"file_path": "/src/main.c", "limit": 20}},
    ]
    result = {
        "type": "tool_result",
        "tool_use_id": call["id"],
        "content": [text("int main(void) { return 0; }")],
        "cache_control": CACHED,
    }
    second = session(
        [ASKED, {"role": "assistant", "content": answer}, {"role": "user", "content": [result, text("Go on.")]}]
    )
    events = await events_of(served, second)
    assert events[-2]["delta"]["stop_reason"] == "end_turn"
    before, after = prompt_of(served, 0), prompt_of(served, 1)
    assert after.startswith(before), "the second turn finds the first in the cache"
    assert f"I will look.\n{READ}" in after
    assert "Read: int main(void) { return 0; }" in after


async def test_its_client_does_the_same(served: Served, connect: Connect) -> None:
    client = connect(served, auth_token="the-right-key")
    body = {key: value for key, value in session([ASKED]).items() if key != "stream"}
    async with client.beta.messages.stream(**body, betas=["claude-code-20250219"]) as stream:
        message = await stream.get_final_message()
    assert [block.type for block in message.content] == ["text", "tool_use"]
    assert message.content[1].to_dict()["input"] == {"file_path": "/src/main.c", "limit": 20}
    assert [model.id async for model in client.models.list()][1] == MODEL


async def test_a_small_context_is_told_in_words_it_understands(serve: Serve) -> None:
    served = await serve({"context": 8192}, model_aliases=(MODEL,))
    response = await served.client.post("/v1/messages?beta=true", json=session([ASKED]))
    assert response.status_code == 400
    assert "prompt is too long" in response.json()["error"]["message"]
