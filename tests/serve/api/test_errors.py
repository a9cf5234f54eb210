"""Every error has one shape, and none says what we are made of."""

from __future__ import annotations

import pytest

from tunechat.serve.api.errors import INTERNAL, error_body, error_headers, public_record
from tunechat.serve.contract.errors import (
    ErrorRecord,
    InvalidRequest,
    ModelError,
    Overloaded,
    Unauthorized,
    Unavailable,
)
from tunechat.tests.serve.api.conftest import Serve
from tunechat.tests.serve.api.harness import LEAKS, chat


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("GET", "/v1/models/", 404, "model_not_found"),
        ("GET", "/livez/", 404, "not_found"),
        ("GET", "/docs", 404, "not_found"),
    ],
)
async def test_unknown_urls_and_methods(serve: Serve, method: str, path: str, status: int, code: str) -> None:
    served = await serve()
    response = await served.client.request(method, path)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert response.headers["x-request-id"]
    assert ("allow" in response.headers) == (status == 405)


INTERNALS = [
    RuntimeError("/home/me/secret.py"),
    KeyError("password"),
    ModelError("/models/x is broken"),
    MemoryError(),
    ValueError("0x7f12345678"),
    Unavailable("FileNotFoundError: /var/lib/x"),
    Unavailable('File "x.py", line 3'),
    RecursionError("maximum recursion depth exceeded"),
]


@pytest.mark.parametrize("error", INTERNALS, ids=repr)
async def test_nothing_internal_is_told(serve: Serve, error: Exception) -> None:
    for engine in ({"refusal": error}, {"faults": {0: error}}, {"faults": {1: error}}):
        served = await serve(engine)
        for stream in (False, True):
            served.engine.sequences.clear()
            response = await served.client.post("/v1/chat/completions", json=chat(stream=stream))
            assert not LEAKS.search(response.content)
            assert b"secret" not in response.content
            assert b"password" not in response.content


async def test_an_error_in_a_route_is_a_plain_500(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    served = await serve()

    def broken(*_: object) -> None:
        raise ZeroDivisionError("division by zero in /usr/lib")

    monkeypatch.setattr(served.gateway, "check_model", broken)
    response = await served.client.get("/v1/models/x")
    assert response.status_code == 500
    assert response.json() == error_body(INTERNAL)


def test_types_follow_the_status() -> None:
    assert error_body(InvalidRequest("x", param="n").record)["error"] == {
        "message": "x",
        "type": "invalid_request_error",
        "param": "n",
        "code": "invalid_request",
    }
    assert error_body(Unauthorized("x").record)["error"]["type"] == "authentication_error"
    assert error_body(Overloaded("x").record)["error"]["type"] == "overloaded_error"
    assert error_body(INTERNAL)["error"]["type"] == "server_error"


def test_retry_after_is_a_whole_number_of_seconds_from_one() -> None:
    for given, told in ((0, "1"), (1, "1"), (90, "90")):
        record = ErrorRecord(code="x", message="x", http_status=429, retry_after=given)
        assert error_headers(record)["retry-after"] == told


def test_words_meant_for_users_are_kept() -> None:
    record = Unavailable("the engine failed and is being restarted").record
    assert public_record(Unavailable.from_record(record)).message == record.message
