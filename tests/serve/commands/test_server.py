"""The client of a running server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunechat.serve.commands.server import Server, chunk_of, error_of, events, lines_of
from tunechat.serve.contract.errors import ModelNotFound, TunechatError, Unauthorized, Unavailable

from .conftest import FakeServer, refusal


@given(st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), min_size=1)))
def test_events_come_out_as_they_went_in(payloads: list[str]) -> None:
    text = "".join(f": heartbeat\n\ndata: {payload}\n\n" for payload in payloads)
    assert list(events(iter(text.split("\n")))) == payloads


def test_event_of_several_lines_is_joined_and_an_unfinished_one_is_dropped() -> None:
    assert list(events(iter(["event: x", "data: a", "data:b", "", "data: cut off"]))) == ["a\nb"]


@given(
    st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]))),
    st.sampled_from(["\n", "\r\n"]),
    st.integers(1, 9),
)
def test_lines_end_at_line_feeds_alone_wherever_they_are_cut(lines: list[str], end: str, size: int) -> None:
    text = "".join(line + end for line in lines)
    assert list(lines_of(text[at : at + size] for at in range(0, len(text), size))) == lines


def test_separators_of_unicode_stay_inside_an_event() -> None:
    payload = json.dumps({"text": "one\u2028two\x85three\x1c"}, ensure_ascii=False)
    transport = httpx.MockTransport(lambda request: httpx.Response(200, text=f"data: {payload}\n\n"))
    with Server("http://127.0.0.1:1", transport=transport) as server:
        assert list(server.stream("/events")) == [payload]


def test_stream_without_a_body_is_a_get_and_a_form_is_sent_whole(tmp_path: Path) -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        request.read()
        seen.append(request)
        return httpx.Response(200, json={"id": "file-1"})

    content = bytes(range(256)) * 1000
    (tmp_path / "data.bin").write_bytes(content)
    with Server("http://127.0.0.1:1", transport=httpx.MockTransport(answer)) as server:
        assert list(server.stream("/events")) == []
        assert server.send_file("/v1/files", tmp_path / "data.bin", "Größe.jsonl", {"purpose": "x"}) == {"id": "file-1"}
    assert [request.method for request in seen] == ["GET", "POST"] and seen[0].content == b""
    assert content in seen[1].content and "Größe.jsonl".encode() in seen[1].content
    assert seen[1].headers["content-type"].startswith("multipart/form-data")


def test_key_is_sent_as_a_bearer(server: Server, fake: FakeServer) -> None:
    assert server.get("/v1/models")["data"][0]["id"] == "tiny"
    assert fake.requests[-1].headers["authorization"] == "Bearer secret-key"


def test_refusal_becomes_the_error_that_it_tells(server: Server, fake: FakeServer) -> None:
    fake.answers["/v1/models"] = refusal(401, "invalid_api_key", "wrong key")
    with pytest.raises(Unauthorized, match="wrong key"):
        server.get("/v1/models")
    with pytest.raises(ModelNotFound.__mro__[1], match="no such model") as caught:
        list(server.stream("/v1/chat/completions", {"model": "x", "messages": [{"content": "a"}]}))
    assert (caught.value.code, caught.value.http_status) == ("model_not_found", 404)


@pytest.mark.parametrize("body", ["<html>", "[]", '{"error": "text"}', ""])
def test_error_without_openai_shape_still_has_a_message(body: str) -> None:
    error = error_of(httpx.Response(502, text=body))
    assert "502 Bad Gateway" in error.message


def test_error_event_is_raised() -> None:
    with pytest.raises(TunechatError, match="the engine died") as caught:
        chunk_of(json.dumps({"error": {"message": "the engine died", "code": "engine_failed"}}))
    assert caught.value.code == "engine_failed"
    for data in ("{", "[]", "1"):
        with pytest.raises(Unavailable):
            chunk_of(data)


def test_absent_server_is_told_with_the_mend() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with Server("http://127.0.0.1:1", transport=httpx.MockTransport(refuse)) as server:
        assert not server.answers()
        with pytest.raises(
            Unavailable, match=r"no server answers at http://127\.0\.0\.1:1; `tunechat serve` starts one"
        ):
            server.get("/v1/models")


def test_broken_connection_is_told() -> None:
    class Broken(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield b'data: {"choices": []}\n\n'
            raise httpx.ReadError("reset")

    transport = httpx.MockTransport(lambda request: httpx.Response(200, stream=Broken()))
    with Server("http://127.0.0.1:1", transport=transport) as server:
        stream = server.stream("/v1/chat/completions", {})
        assert next(stream) == '{"choices": []}'
        with pytest.raises(Unavailable, match="did not finish its answer"):
            next(stream)
