"""Whole conversations of clients: Codex, the Agents SDK, and OpenAI's own helpers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal

import httpx2
import openai
import pydantic
import pytest
from openai.types.responses import Response

from tunechat.tests.serve.api.conftest import Served
from tunechat.tests.serve.api.harness import MODEL
from tunechat.tests.serve.api.responses.checked import URL, check_stream, prompt_of
from tunechat.tests.serve.api.responses.conftest import Respond
from tunechat.tests.serve.api.responses.shapes import CODEX_HEADERS, SERVED_BY_CLIENT, agents, codex

EXEC = '<tool_call>\n{"name": "exec_command", "arguments": {"cmd": "ls"}}\n</tool_call>'
LOOK = '<tool_call>\n{"name": "mcp__docs__look_up", "arguments": {"query": "ls"}}\n</tool_call>'
WEATHER = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'

Connect = Callable[[Served], openai.AsyncOpenAI]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """`connect(served)`: OpenAI's client."""
    opened: list[httpx2.AsyncClient] = []

    def make(served: Served) -> openai.AsyncOpenAI:
        opened.append(httpx2.AsyncClient(transport=httpx2.ASGITransport(served.app)))
        return openai.AsyncOpenAI(
            base_url="http://localhost:8000/v1", api_key="any", http_client=opened[-1], max_retries=0
        )

    yield make
    for client in opened:
        await client.aclose()


async def run_codex(served: Served, *more: dict[str, Any]) -> dict[str, Any]:
    response = await served.client.post(URL, json=codex(MODEL, *more), headers=CODEX_HEADERS)
    assert response.status_code == 200, response.text
    told: dict[str, Any] = check_stream(response.text)[-1]["response"]
    return told


def as_codex_sends_back(item: dict[str, Any]) -> dict[str, Any]:
    kept = ("type", "name", "namespace", "arguments", "call_id", "role", "content")
    return {key: item[key] for key in kept if key in item}


async def test_codex_runs_commands_until_it_has_an_answer(respond: Respond) -> None:
    served = await respond(EXEC, LOOK, "Two files.")
    first = await run_codex(served)
    assert first["store"] is False
    names = [tool["name"] for tool in first["tools"]]
    assert names == [*SERVED_BY_CLIENT, "mcp__docs"]
    (call,) = first["output"]
    assert (call["type"], call["name"], json.loads(call["arguments"])) == (
        "function_call",
        "exec_command",
        {"cmd": "ls"},
    )
    done = [as_codex_sends_back(call), result(call, "a.py\nb.py")]
    second = await run_codex(served, *done)
    (call,) = second["output"]
    assert (call["namespace"], call["name"]) == ("mcp__docs", "look_up")
    done += [as_codex_sends_back(call), result(call, [{"type": "input_text", "text": "It lists."}])]
    third = await run_codex(served, *done, {"type": "reasoning", "summary": [], "content": None})
    assert third["output"][0]["content"][0]["text"] == "Two files."
    prompt = prompt_of(served)
    # One message for the system, in front, with the tools; and every call as the model made it.
    assert prompt.count("<|im_start|>system") == 1
    assert prompt.index("You work on code") < prompt.index("Nothing but reading") < prompt.index("Be kind.")
    assert "web_search" not in prompt
    for said in (
        "exec_command",
        "a.py\nb.py",
        '"name": "mcp__docs__look_up", "arguments": {"query": "ls"}',
        "It lists.",
    ):
        assert said in prompt


def result(call: dict[str, Any], output: Any) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call["call_id"], "output": output}


async def test_codex_is_told_when_its_prompt_is_too_long(respond: Respond) -> None:
    served = await respond(engine={"context": 512, "blocks": 32})
    response = await served.client.post(URL, json=codex(MODEL), headers=CODEX_HEADERS)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", "input")


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_agent_calls_its_tool_and_answers(respond: Respond, streamed: bool) -> None:
    served = await respond(WEATHER, "It rains.")

    async def turn(*more: dict[str, Any]) -> Response:
        response = await served.client.post(URL, json=agents(MODEL, *more, **({"stream": True} if streamed else {})))
        assert response.status_code == 200, response.text
        body = check_stream(response.text)[-1]["response"] if streamed else response.json()
        return Response.model_validate(body)

    (call,) = (await turn()).output
    assert call.type == "function_call"
    # Outputs go back as they came, ids and all.
    last = await turn(call.to_dict(), result(call.to_dict(), "Rain."))
    assert last.output_text == "It rains."
    assert "Rain." in prompt_of(served)


class Mood(pydantic.BaseModel):
    mood: Literal["happy", "sad"]
    age: int


async def test_the_stream_helper_and_parse(respond: Respond, connect: Connect) -> None:
    client = connect(await respond('{"mood": "sad", "age": 3}'))
    parsed = await client.responses.parse(model=MODEL, input="How is she?", text_format=Mood)
    assert parsed.output_parsed == Mood(mood="sad", age=3)
    async with client.responses.stream(model=MODEL, input="How is she?", text_format=Mood) as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_response()
    assert kinds[-1] == "response.completed"
    assert final.output_parsed == Mood(mood="sad", age=3)


async def test_the_whole_life_of_a_response(respond: Respond, connect: Connect) -> None:
    client = connect(await respond("Hello"))
    reply = await client.responses.create(model=MODEL, input="Hi")
    assert (await client.responses.retrieve(reply.id)).output_text == "Hello"
    listed = await client.responses.input_items.list(reply.id)
    assert [item.type async for item in listed] == ["message"]
    await client.responses.delete(reply.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(reply.id)
    begun = await client.responses.create(model=MODEL, input="Hi", background=True)
    assert (await client.responses.cancel(begun.id)).status in ("cancelled", "completed")
