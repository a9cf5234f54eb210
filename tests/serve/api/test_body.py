"""What is said of a wrong body: the exact field, and nothing of our own."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from tunechat.serve.api.body import format_path, parse_body
from tunechat.serve.api.schemas.chat import ChatRequest
from tunechat.serve.api.schemas.completions import CompletionRequest
from tunechat.serve.api.schemas.tokenize import TokenizeRequest
from tunechat.serve.contract.errors import InvalidRequest


def error_of(model: type[BaseModel], body: Any) -> InvalidRequest:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(InvalidRequest) as caught:
        parse_body(data, model)
    return caught.value


def message(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "x"} | fields]}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": "m"}, "messages"),
        ({"messages": [{"role": "user", "content": "x"}]}, "model"),
        ({"model": "m", "messages": []}, "messages"),
        ({"model": "m", "messages": [{"content": "x"}]}, "messages[0].role"),
        (message(role="wizard"), "messages[0].role"),
        (message(content=5), "messages[0].content"),
        (message(content=[]), "messages[0].content"),
        (message(content=[{"type": "text", "text": 5}]), "messages[0].content[0].text"),
        (message(content=[{"type": "text"}]), "messages[0].content[0].text"),
        (message(content=[{"type": "image_url", "image_url": {"url": "file:///x"}}]), "messages[0].content[0].type"),
        (message(content=None), "messages[0].content"),
        (message(role="assistant", tool_calls=[{"id": "1"}]), "messages[0].tool_calls[0].function"),
        (message() | {"stop": ["a", ""]}, "stop[1]"),
        (message() | {"stop": ""}, "stop"),
        (message() | {"logit_bias": {"7": 101}}, "logit_bias.7"),
        (message() | {"stream_options": {"include_usage": 1}, "stream": True}, "stream_options.include_usage"),
        (message() | {"stream_options": {}}, "stream_options"),
    ],
)
def test_the_field_is_named(body: Any, param: str) -> None:
    assert error_of(ChatRequest, body).param == param


@pytest.mark.parametrize(
    ("prompt", "param"),
    [
        ([1, True], "prompt[1]"),
        ([[1], ["x"]], "prompt[1][0]"),
        ([], "prompt"),
        ([[]], "prompt[0]"),
        (5, "prompt"),
        ([-1], "prompt[0]"),
        ([1, 2**31], "prompt[1]"),
        (["x", 1], "prompt[1]"),
        (None, "prompt"),
    ],
)
def test_the_item_of_a_prompt_is_named(prompt: Any, param: str) -> None:
    assert error_of(CompletionRequest, {"model": "m", "prompt": prompt}).param == param


@pytest.mark.parametrize("body", [b"", b"{", b"nonsense", b"\xff\xfe", b'{"a":1}}', b"{'a': 1}", b'{"model": NaN'])
def test_what_is_no_json_is_told(body: bytes) -> None:
    assert error_of(ChatRequest, body).code == "invalid_json"


@pytest.mark.parametrize("body", [b"[]", b"1", b"null", b'"x"'])
def test_what_is_no_object_is_told(body: bytes) -> None:
    assert "JSON object" in error_of(ChatRequest, body).message


def test_our_own_requests_take_no_strangers() -> None:
    error = error_of(TokenizeRequest, {"prompt": "x", "promt": "y"})
    assert (error.code, error.param) == ("unknown_parameter", "promt")


def test_a_million_bad_items_make_one_error() -> None:
    body = b'{"model":"m","prompt":[' + b"{}," * 300_000 + b"1]}"
    assert error_of(CompletionRequest, body).param == "prompt[0]"


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x),
    )
)
def test_any_json_is_taken_or_explained(body: Any) -> None:
    data = json.dumps({"model": "m", "messages": body, "prompt": body, "n": body}).encode()
    for model in (ChatRequest, CompletionRequest):
        try:
            parse_body(data, model)
        except InvalidRequest as error:
            assert error.param
            assert error.http_status == 400


def test_paths_are_written_as_openai_writes_them() -> None:
    assert format_path(("messages", 0, "content", 2, "text")) == "messages[0].content[2].text"
    assert len(format_path(("x" * 1000,))) <= 200
