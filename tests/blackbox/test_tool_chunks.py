"""Streamed calls as bytes: what some client or other breaks on, looked for in what the real server sends.

Each test is one row of what compatible servers get wrong; the clients that it breaks are named with it.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tunechat.tests.blackbox.server import MODEL, Server
from tunechat.tests.blackbox.streams import chunks_of

pytestmark = pytest.mark.usefixtures("healthy_at_end")

TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "maxLength": 12}, "day": {"enum": ["today", "morgen früh"]}},
                "required": ["city", "day"],
            },
        },
    }
    for name in ("get_weather", "book-table_2")
]
ASK: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "What is the weather in Paris, and in Rome? Then book a table."}],
    "tools": TOOLS,
    "temperature": 1,
    "seed": 3,
    "max_tokens": 900,
    "stream": True,
    "stream_options": {"include_usage": True},
}
MARKUP = ("<tool_call>", "</tool_call>", '"arguments"', "<|im_end|>")
Chunks = list[dict[str, Any]]


@pytest.fixture(scope="module", params=["required", "named", "one"])
def chunks(server: Server, request: pytest.FixtureRequest) -> Chunks:
    """The chunks of a turn that calls: any functions, one of them, and one call alone."""
    choice = {"type": "function", "function": {"name": "get_weather"}} if request.param == "named" else "required"
    ask = {**ASK, "tool_choice": choice, "parallel_tool_calls": request.param != "one"}
    return chunks_of(server, "/v1/chat/completions", ask)


@pytest.fixture(scope="module")
def deltas(chunks: Chunks) -> list[dict[str, Any]]:
    """What the chunks say of calls, in order."""
    return [call for chunk in chunks for choice in chunk["choices"] for call in choice["delta"].get("tool_calls", ())]


def test_every_delta_has_an_index(deltas: list[dict[str, Any]]) -> None:
    """Without: the stream helper of openai-python, pydantic-ai and Logfire fail, or calls become one."""
    indices = [delta["index"] for delta in deltas]
    assert all(type(index) is int for index in indices)
    assert indices == sorted(indices)
    assert sorted(set(indices)) == list(range(len(set(indices))))


def test_every_call_has_an_id_once(deltas: list[dict[str, Any]]) -> None:
    """Repeated or left out: Codex takes every delta for a call of its own."""
    ids = [(delta["index"], delta["id"]) for delta in deltas if "id" in delta]
    assert [index for index, _ in ids] == sorted({delta["index"] for delta in deltas})
    assert len({id_ for _, id_ in ids}) == len(ids)
    assert all(id_.startswith("call_") for _, id_ in ids)


def test_the_first_delta_has_all_keys(deltas: list[dict[str, Any]]) -> None:
    """Without `arguments` in it: openai-php fails."""
    for delta in deltas:
        if "id" in delta:
            assert set(delta) == {"index", "id", "type", "function"} and delta["type"] == "function"
            assert delta["function"]["arguments"] == ""
            assert delta["function"]["name"] in {tool["function"]["name"] for tool in TOOLS}


def test_later_deltas_have_arguments_alone(deltas: list[dict[str, Any]]) -> None:
    """With an empty name in each: rig calls a function without a name."""
    later = [delta for delta in deltas if "id" not in delta]
    assert later
    for delta in later:
        assert set(delta) == {"index", "function"}
        assert set(delta["function"]) == {"arguments"} and delta["function"]["arguments"]


def test_arguments_are_pieces_of_a_text(deltas: list[dict[str, Any]]) -> None:
    """An object instead: every client fails."""
    texts: dict[int, str] = {}
    for delta in deltas:
        assert isinstance(delta["function"]["arguments"], str)
        texts[delta["index"]] = texts.get(delta["index"], "") + delta["function"]["arguments"]
    for text in texts.values():
        arguments = json.loads(text)
        assert set(arguments) == {"city", "day"} and arguments["day"] in ("today", "morgen früh")


def test_the_end_is_told_as_calls(chunks: Chunks) -> None:
    """ "stop" or "tool_call" instead: opencode ends after one call, pydantic-ai fails."""
    reasons = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]]
    assert reasons == [None] * (len(reasons) - 1) + ["tool_calls"]


def test_no_markup_is_content(chunks: Chunks) -> None:
    """In the content: the tool never runs."""
    text = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    assert text == ""


def test_choices_and_deltas_are_never_null(chunks: Chunks) -> None:
    """A null, or a usage chunk without `choices`: LangChain, agent-framework and agentUniverse fail."""
    assert all(isinstance(chunk["choices"], list) for chunk in chunks)
    assert all(isinstance(choice["delta"], dict) for chunk in chunks for choice in chunk["choices"])
    assert [len(chunk["choices"]) for chunk in chunks] == [1] * (len(chunks) - 1) + [0]
    assert chunks[-1]["usage"]["completion_tokens"] > 0
    assert chunks[-2]["choices"][0]["delta"] == {}


def test_the_role_comes_first_and_once(chunks: Chunks) -> None:
    """Without: LangChain cannot tell whose message it is. Content is a text there, never null."""
    first, *rest = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert first == {"role": "assistant", "content": ""}
    assert not any("role" in delta or "content" in delta for delta in rest)


def test_each_call_is_over_before_the_next_begins(deltas: list[dict[str, Any]]) -> None:
    """Mixed: clients that add pieces to the last call write into the wrong one."""
    seen = [delta["index"] for delta in deltas if "id" in delta]
    current = -1
    for delta in deltas:
        current += "id" in delta
        assert delta["index"] == seen[current]


@pytest.mark.parametrize("seed", range(3))
def test_text_and_calls_never_mix(server: Server, seed: int) -> None:
    """Where the model chooses: text first, then calls, and no markup in the text."""
    ask = {**ASK, "tool_choice": "auto", "seed": seed, "max_tokens": 60}
    deltas = [
        choice["delta"] for chunk in chunks_of(server, "/v1/chat/completions", ask) for choice in chunk["choices"]
    ]
    kinds = ["text" if "content" in delta else "call" for delta in deltas if delta]
    assert kinds == sorted(kinds, reverse=True)
    text = "".join(delta.get("content") or "" for delta in deltas)
    assert not any(mark in text for mark in MARKUP)


def test_a_call_that_is_cut_off_is_told_as_cut_off(server: Server) -> None:
    ask = {**ASK, "tool_choice": "required", "max_tokens": 14}
    chunks = chunks_of(server, "/v1/chat/completions", ask)
    assert chunks[-2]["choices"][0] | {"logprobs": None} == {
        "index": 0,
        "delta": {},
        "logprobs": None,
        "finish_reason": "length",
    }


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_is_too_long_is_refused_and_never_cut(server: Server, stream: bool) -> None:
    """Cut in silence: every agent goes wrong."""
    tools = [{"type": "function", "function": {"name": f"f{n}", "description": "word " * 900}} for n in range(12)]
    ask = {key: value for key, value in ASK.items() if key != "stream_options"}
    response = server.http.post("/v1/chat/completions", json={**ask, "tools": tools, "stream": stream})
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, "context_length_exceeded")
    assert str(8192) in error["message"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/responses", {"input": "Hi", "max_output_tokens": 16}),
        ("/v1/messages/count_tokens", {"messages": [{"role": "user", "content": "Hi"}]}),
        ("/v1/messages", {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}),
        ("/v1/completions", {"prompt": "Hi", "max_tokens": 4}),
    ],
)
def test_the_routes_that_clients_ask_are_there(server: Server, path: str, body: dict[str, Any]) -> None:
    """Without: Codex, n8n and Vercel's default (responses), Claude Code (messages, and its count without max_tokens),
    LlamaIndex (completions) get 404."""
    assert server.http.post(path, json={"model": MODEL, **body}).status_code == 200
