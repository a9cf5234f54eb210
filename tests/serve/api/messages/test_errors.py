"""Errors of the Messages routes have Anthropic's shape, whichever layer they come from."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import pytest
from anthropic.types import BetaErrorResponse

from tunechat.serve.api.messages.errors import error_body
from tunechat.serve.contract.errors import ErrorRecord, Overloaded
from tunechat.tests.serve.api.conftest import Serve, Served
from tunechat.tests.serve.api.harness import Answer, call, make_scope
from tunechat.tests.serve.api.messages.conftest import COUNT_URL, URL, Connect, ask

KEY = "the-right-key"
JSON = {"content-type": "application/json"}


async def send(served: Served, path: str = URL, method: str = "POST", body: Any = None, **headers: str) -> Answer:
    scope = make_scope(method, path, JSON | {name.replace("_", "-"): value for name, value in headers.items()})
    content = body if isinstance(body, bytes) else json.dumps(ask() if body is None else body).encode()
    return await call(served.app, scope, content)


def check(answer: Answer, status: int, kind: str) -> str:
    """The message of an error that has this status and type, and the right shape."""
    assert answer.status == status, answer.body
    assert set(answer.json) == {"type", "error", "request_id"}
    assert answer.json["type"] == "error"
    assert set(answer.json["error"]) == {"type", "message", "details"}
    assert answer.json["error"]["type"] == kind
    assert answer.json["request_id"] == answer.headers["request-id"] == answer.headers["x-request-id"]
    assert int(answer.headers["content-length"]) == len(answer.body)
    message: str = answer.json["error"]["message"]
    return message


@pytest.mark.parametrize("path", [URL, COUNT_URL])
async def test_every_layer_speaks_so(serve: Serve, path: str) -> None:
    served = await serve(api_keys=(KEY,), max_body_bytes=1024)
    good = {"x_api_key": KEY}
    check(await send(served, path), 401, "authentication_error")
    check(await send(served, path, x_api_key="wrong-key"), 401, "authentication_error")
    check(await send(served, path, body="x" * 2000, **good), 413, "request_too_large")
    check(await send(served, path, content_encoding="gzip", **good), 415, "invalid_request_error")
    check(await send(served, path, content_type="text/plain", **good), 415, "invalid_request_error")
    check(await send(served, path, "GET", **good), 405, "invalid_request_error")
    for wrong in (b"{", {"model": "tiny"}, ask([{"type": "image"}])):
        check(await send(served, path, body=wrong, **good), 400, "invalid_request_error")
    check(await send(served, path, body=ask(model="other"), **good), 404, "not_found_error")
    served.gateway.drain.begin()
    answer = await send(served, path, **good)
    check(answer, 503, "overloaded_error")
    assert answer.headers["retry-after"]


async def test_pages_of_other_sites_are_told_so_too(serve: Serve) -> None:
    served = await serve()
    check(await send(served, origin="http://evil.example"), 403, "permission_error")
    check(await send(served, host="evil.example"), 400, "invalid_request_error")


async def test_a_full_queue_is_a_rate_limit(serve: Serve) -> None:
    served = await serve()
    served.engine.refusal = Overloaded("full", retry_after=3)
    for stream in (False, True):
        answer = await send(served, body=ask(stream=stream))
        assert check(answer, 429, "rate_limit_error") == "full"
        assert answer.headers["retry-after"] == "3"


async def test_what_nobody_expected_is_an_api_error(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    served = await serve()

    def broken(*_: object) -> None:
        raise ZeroDivisionError("division by zero in /usr/lib")

    monkeypatch.setattr(served.gateway, "serve", broken)
    answer = await send(served)
    assert "zero" not in check(answer, 500, "api_error")


async def test_a_model_that_loads_is_overloaded(serve: Serve) -> None:
    import asyncio

    served = await serve({"load": asyncio.Event()})
    check(await send(served), 503, "overloaded_error")


async def test_other_routes_keep_openais_shape(serve: Serve) -> None:
    served = await serve(api_keys=(KEY,))
    for path in ("/v1/models", "/v1/chat/completions", "/v1/messagesx", "/v1/messages/", "/v1/messages/batches"):
        answer = await send(served, path)
        assert answer.json["error"]["code"] == "invalid_api_key"
        assert "request-id" not in answer.headers


async def test_the_client_raises_its_own_errors(serve: Serve, connect: Connect) -> None:
    served = await serve(api_keys=(KEY,))
    client = connect(served, api_key=KEY)
    with pytest.raises(anthropic.BadRequestError) as wrong:
        await client.messages.create(**ask(max_tokens=0))
    assert (wrong.value.type, wrong.value.error_code) == ("invalid_request_error", "invalid_value")
    assert wrong.value.api_message is not None and "max_tokens" in wrong.value.api_message
    assert wrong.value.request_id is not None and wrong.value.request_id.startswith("req_")
    with pytest.raises(anthropic.NotFoundError):
        await client.messages.create(**ask(model="claude-none"))
    for stranger in (connect(served, api_key="nobodys-key"), connect(served, auth_token="nobodys-key")):
        with pytest.raises(anthropic.AuthenticationError):
            await stranger.messages.create(**ask())
    await connect(served, auth_token=KEY).messages.create(**ask())
    served.engine.refusal = Overloaded("full")
    with pytest.raises(anthropic.RateLimitError):
        await client.messages.create(**ask())
    served.gateway.drain.begin()
    with pytest.raises(anthropic.ServiceUnavailableError) as leaving:
        await client.messages.create(**ask())
    assert leaving.value.type == "overloaded_error"


@pytest.mark.parametrize(("status", "kind"), [
    (400, "invalid_request_error"), (401, "authentication_error"), (403, "permission_error"), (404, "not_found_error"),
    (405, "invalid_request_error"), (408, "timeout_error"), (413, "request_too_large"), (429, "rate_limit_error"),
    (431, "invalid_request_error"), (500, "api_error"), (503, "overloaded_error"), (504, "timeout_error"),
])  # fmt: skip
def test_types_follow_the_status(status: int, kind: str) -> None:
    record = ErrorRecord(code="some_code", message="No.", http_status=status, param="messages[0].content")
    body = error_body(record, "req_1")
    if status != 413:  # their documentation has its type, their client's types do not
        BetaErrorResponse.model_validate(body)
    assert body["error"] == {
        "type": kind,
        "message": "messages[0].content: No.",
        "details": {"error_code": "some_code"},
    }
    assert body["request_id"] == "req_1"


def test_a_field_is_named_once() -> None:
    record = ErrorRecord(
        code="x", message="Missing required parameter: 'max_tokens'.", http_status=400, param="max_tokens"
    )
    assert error_body(record, None)["error"]["message"] == record.message
