"""Streams as bytes: what is sent, in which order, to the last line."""

from __future__ import annotations

import http.client
import json
import signal
import time
from typing import Any

import pytest

from tunechat.tests.blackbox.server import MODEL, Server
from tunechat.tests.blackbox.streams import chunks_of, events_of, stream_of

pytestmark = pytest.mark.usefixtures("healthy")

CHAT: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Say it in Thai, with emoji: good morning"}],
    "temperature": 0,
    "max_tokens": 12,
    "stream": True,
}
TEXT: dict[str, Any] = {"model": MODEL, "prompt": "One, two,", "temperature": 0, "max_tokens": 6, "stream": True}


def check_heads(chunks: list[dict[str, Any]], prefix: str, kind: str) -> None:
    for key in ("id", "object", "created", "model", "system_fingerprint"):
        assert len({chunk[key] for chunk in chunks}) == 1, key
    assert chunks[0]["id"].startswith(prefix)
    assert (chunks[0]["object"], chunks[0]["model"]) == (kind, MODEL)


@pytest.mark.parametrize("usage", [None, False, True])
def test_chat_chunks_come_in_the_safe_order(server: Server, usage: bool | None) -> None:
    options = {} if usage is None else {"stream_options": {"include_usage": usage}}
    chunks = chunks_of(server, "/v1/chat/completions", {**CHAT, **options})
    check_heads(chunks, "chatcmpl-", "chat.completion.chunk")
    if usage:
        last = chunks.pop()
        assert last["choices"] == []
        assert last["usage"]["completion_tokens"] == 12
        assert last["usage"]["total_tokens"] == last["usage"]["prompt_tokens"] + 12
        assert all(chunk["usage"] is None for chunk in chunks)
    else:
        assert all("usage" not in chunk for chunk in chunks)
    choices = [chunk["choices"][0] for chunk in chunks]
    assert all(len(chunk["choices"]) == 1 for chunk in chunks)
    assert choices[0]["delta"] == {"role": "assistant", "content": ""}
    assert all(set(choice["delta"]) == {"content"} and choice["delta"]["content"] for choice in choices[1:-1])
    assert len(choices) > 4
    assert (choices[-1]["delta"], choices[-1]["finish_reason"]) == ({}, "length")
    assert all(choice["finish_reason"] is None for choice in choices[:-1])
    assert all((choice["index"], choice["logprobs"]) == (0, None) for choice in choices)


def test_every_choice_has_its_role_first_and_its_reason_last(server: Server) -> None:
    chunks = chunks_of(server, "/v1/chat/completions", {**CHAT, "temperature": 1, "n": 3})
    check_heads(chunks, "chatcmpl-", "chat.completion.chunk")
    for index in range(3):
        own = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == index]
        assert own[0]["delta"]["role"] == "assistant"
        assert all("role" not in choice["delta"] for choice in own[1:])
        assert [choice["finish_reason"] for choice in own if choice["finish_reason"]] == [own[-1]["finish_reason"]]


def test_completion_chunks(server: Server) -> None:
    body = {**TEXT, "logprobs": 2, "echo": True, "stream_options": {"include_usage": True}}
    *chunks, last = chunks_of(server, "/v1/completions", body)
    check_heads([*chunks, last], "cmpl-", "text_completion")
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 6)
    choices = [chunk["choices"][0] for chunk in chunks]
    assert choices[0]["text"].startswith("One, two,")
    assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + ["length"]
    text = "".join(choice["text"] for choice in choices)
    tokens = [token for choice in choices if choice["logprobs"] for token in choice["logprobs"]["tokens"]]
    assert "".join(tokens) == text


def test_refusals_keep_their_status_and_are_no_stream(server: Server) -> None:
    response, raw = stream_of(server, "/v1/chat/completions", {**CHAT, "max_tokens": 100_000})
    assert (response.status, response.headers["content-type"]) == (400, "application/json")
    assert set(json.loads(raw)) == {"error"}


def test_a_silent_stream_sends_comments(server: Server) -> None:
    """As before a long prompt's first token: the engine is held up, and the connection shows that it lives."""
    engine = server.engine
    connection = http.client.HTTPConnection(*server.address, timeout=60)
    engine.send_signal(signal.SIGSTOP)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(CHAT), {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert response.status == 200
        head = b""
        began = time.monotonic()
        while b": ping" not in head:
            head += response.read1()
            assert time.monotonic() - began < 10
        engine.send_signal(signal.SIGCONT)
        raw = head + response.read()
    finally:
        engine.send_signal(signal.SIGCONT)
        connection.close()
    assert b"\n\n: ping\n\n" in raw
    *chunks, end = events_of(raw)
    assert end == b"[DONE]"
    assert json.loads(chunks[-1])["choices"][0]["finish_reason"] == "length"
