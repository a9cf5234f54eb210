"""Responses from a real server: OpenAI's client, LangChain, Codex' and the Agents SDK's requests, and `kill -9`."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import openai
import pydantic
import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from openai.types.responses import Response

from tunechat.tests.blackbox.server import MODEL, Server, serving, wait_until
from tunechat.tests.serve.api.responses.checked import check_stream
from tunechat.tests.serve.api.responses.shapes import CODEX_HEADERS, agents, codex
from tunechat.tests.tiny_models import make_tiny

pytestmark = pytest.mark.usefixtures("healthy_at_end")

# In tokens, which are bytes for the tiny model: more than the default model reads.
LONG = 10 << 10


class City(pydantic.BaseModel):
    name: str = pydantic.Field(max_length=20)
    size: Literal["small", "large"]


def test_text_whole_streamed_and_continued(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": MODEL, "temperature": 0, "max_output_tokens": 12}
    whole = client.responses.create(input="Name three colours.", instructions="Be brief.", **asked)
    with client.responses.stream(input="Name three colours.", instructions="Be brief.", **asked) as stream:
        kinds = [event.type for event in stream]
    assert kinds[-1] == f"response.{whole.status}"
    assert kinds.count("response.output_text.delta") > 1
    assert whole.output_text
    after = client.responses.create(input="And another?", previous_response_id=whole.id, **asked)
    told = [{"role": "user", "content": "Name three colours."}, *(item.to_dict() for item in whole.output)]
    same = client.responses.create(input=[*told, {"role": "user", "content": "And another?"}], **asked)  # type: ignore[list-item]
    assert after.output_text == same.output_text
    assert after.usage is not None and same.usage is not None
    assert after.usage.input_tokens == same.usage.input_tokens
    assert same.usage.input_tokens_details.cached_tokens > 0


def test_calls_and_shapes_hold(client: openai.OpenAI) -> None:
    tools: Any = [
        {"type": "function", "name": "add", "strict": True, "parameters": City.model_json_schema()},
    ]
    asked: dict[str, Any] = {"model": MODEL, "temperature": 0, "max_output_tokens": 60}
    called = client.responses.create(input="Paris.", tools=tools, tool_choice="required", **asked)
    (call,) = [item for item in called.output if item.type == "function_call"][:1]
    City.model_validate_json(call.arguments)
    parsed = client.responses.parse(input="Paris is large.", text_format=City, **asked)
    assert isinstance(parsed.output_parsed, City)


@tool
def shout(word: Literal["hey", "ho"]) -> str:
    """Says a word aloud."""
    return word.upper()


@pytest.mark.parametrize("previous", [False, True])
def test_langchain(server: Server, previous: bool) -> None:
    made: dict[str, Any] = {"base_url": f"{server.url}/v1", "api_key": "any", "use_responses_api": True}
    made["use_previous_response_id"] = previous
    model = ChatOpenAI(model=MODEL, temperature=0, max_completion_tokens=60, max_retries=0, **made)
    asked = HumanMessage("Say hey.")
    bound = model.bind_tools([shout], tool_choice="any", parallel_tool_calls=False)
    chunks = list(bound.stream([asked]))
    total: Any = chunks[0]
    for chunk in chunks[1:]:
        total += chunk
    called: Any = bound.invoke([asked])
    (call,) = called.tool_calls
    assert (call["name"], call["args"]) == (total.tool_calls[0]["name"], total.tool_calls[0]["args"])
    assert total.usage_metadata == called.usage_metadata | {
        "input_token_details": total.usage_metadata["input_token_details"]
    }
    result = shout.invoke(call)
    assert isinstance(result, ToolMessage)
    answer = model.bind_tools([shout], tool_choice="none").invoke([asked, called, result])
    assert answer.text
    assert answer.response_metadata["model_name"] == MODEL
    if not previous:
        assert isinstance(model.with_structured_output(City, method="json_schema").invoke("Paris is large."), City)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with a long context."""
    return make_tiny(tmp_path_factory.mktemp("long") / "tiny", "llama", max_position_embeddings=1 << 15)


@contextmanager
def long_context(tiny: Path) -> Iterator[Server]:
    home = tiny.parent / "home"
    with serving(home, home.with_suffix(".log"), str(tiny), max_context=LONG, cache_bytes="64MiB") as server:
        yield server


@pytest.fixture(scope="module")
def long(tiny: Path) -> Iterator[Server]:
    """A server of that model; the last test kills it."""
    with long_context(tiny) as server:
        yield server


def test_codex(long: Server) -> None:
    body = codex("tiny", instructions="You work on code in a terminal. " * 266)
    streamed = long.http.post("/v1/responses", json=body, headers=CODEX_HEADERS)
    assert streamed.status_code == 200, streamed.text
    last = check_stream(streamed.text)[-1]["response"]
    assert last["usage"]["input_tokens"] > 8192
    assert last["status"] in ("completed", "incomplete")


def test_an_agent(long: Server) -> None:
    asked = agents("tiny", tool_choice="required", max_output_tokens=100, parallel_tool_calls=False)
    first = Response.model_validate(long.http.post("/v1/responses", json=asked).json())
    (call,) = first.output
    assert call.type == "function_call"
    if call.status == "completed":
        assert set(json.loads(call.arguments)) <= {"city"}
    done = [
        call.to_dict() | {"arguments": "{}"},
        {"type": "function_call_output", "call_id": call.call_id, "output": "x"},
    ]
    again = long.http.post("/v1/responses", json=agents("tiny", *done, max_output_tokens=8))
    assert again.status_code == 200, again.text


def test_what_was_stored_survives_a_kill(long: Server, tiny: Path) -> None:
    ask = {"model": "tiny", "input": "Hi", "max_output_tokens": 4}
    endless = {"model": "tiny", "input": "Hi", "background": True, "ignore_eos": True}
    stored = long.http.post("/v1/responses", json=ask).json()
    running = long.http.post("/v1/responses", json=endless).json()
    path = f"/v1/responses/{running['id']}"
    wait_until(lambda: long.http.get(path).json()["status"] == "in_progress", 10, "the response runs")
    os.killpg(long.popen.pid, signal.SIGKILL)
    long.popen.wait()
    with long_context(tiny) as server:
        assert server.http.get(f"/v1/responses/{stored['id']}").json() == stored
        died = server.http.get(path).json()
        assert (died["status"], died["error"]["code"]) == ("failed", "server_error")
        again = server.http.post("/v1/responses", json=ask | {"previous_response_id": stored["id"]})
        assert again.status_code == 200
        assert server.end() == 0
