"""The order and the shape of a chat's chunks."""

from __future__ import annotations

from typing import Any

import pytest

from tunechat.tests.serve.api.conftest import Serve
from tunechat.tests.serve.api.harness import FINGERPRINT, MODEL, chat, events_of


async def chunks_of(serve: Serve, engine: dict[str, Any] | None = None, **fields: Any) -> list[Any]:
    served = await serve(engine)
    response = await served.client.post("/v1/chat/completions", json=chat(stream=True, **fields))
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-accel-buffering"] == "no"
    assert response.headers["cache-control"] == "no-cache"
    return events_of(response.content)


async def test_order_is_role_deltas_finish_end_mark(serve: Serve) -> None:
    chunks = await chunks_of(serve, {"answer": "Hey"})
    identity, created = chunks[0]["id"], chunks[0]["created"]

    def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        return {
            "id": identity,
            "object": "chat.completion.chunk",
            "created": created,
            "model": MODEL,
            "system_fingerprint": f"fp_{FINGERPRINT[:12]}",
            "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}],
        }

    assert identity.startswith("chatcmpl-")
    assert chunks == [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "H"}),
        chunk({"content": "e"}),
        chunk({"content": "y"}),
        chunk({}, "stop"),
        "[DONE]",
    ]


async def test_usage_chunk_comes_last_and_only_when_asked_for(serve: Serve) -> None:
    chunks = await chunks_of(serve, {"answer": "Hey"}, stream_options={"include_usage": True})
    assert chunks[-1] == "[DONE]"
    assert all(chunk["usage"] is None for chunk in chunks[:-2])
    assert chunks[-2]["choices"] == []
    usage = chunks[-2]["usage"]
    assert usage["completion_tokens"] == 4  # three letters and the stop token
    assert usage["total_tokens"] == usage["prompt_tokens"] + 4


@pytest.mark.parametrize("options", [{}, {"include_usage": False}])
async def test_no_usage_unasked(serve: Serve, options: dict[str, Any]) -> None:
    chunks = await chunks_of(serve, stream_options=options)
    assert all("usage" not in chunk for chunk in chunks[:-1])


async def test_every_choice_has_its_own_role_and_end(serve: Serve) -> None:
    chunks = await chunks_of(serve, {"answers": ["one", "three"]}, n=2)
    texts = ["", ""]
    for chunk in chunks[2:-1]:
        choice = chunk["choices"][0]
        texts[choice["index"]] += choice["delta"].get("content", "")
    assert [chunk["choices"][0]["delta"] for chunk in chunks[:2]] == [{"role": "assistant", "content": ""}] * 2
    assert texts == ["one", "three"]
    ends = [chunk["choices"][0] for chunk in chunks[:-1] if chunk["choices"][0]["finish_reason"]]
    assert sorted(end["index"] for end in ends) == [0, 1]
    assert all(end["delta"] == {} for end in ends)


async def test_length_is_told(serve: Serve) -> None:
    chunks = await chunks_of(serve, {"answer": "Hello"}, max_tokens=2)
    assert chunks[-2]["choices"][0]["finish_reason"] == "length"
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks[:-1]) == "He"


async def test_characters_are_never_cut(serve: Serve) -> None:
    answer = "a👩‍👩‍👧é漢"
    chunks = await chunks_of(serve, {"answer": answer})
    pieces = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks[:-1]]
    assert "".join(pieces) == answer
    assert not any("�" in piece for piece in pieces)
