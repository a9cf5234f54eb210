"""Errors as Anthropic's clients expect them, whichever layer they come from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...contract.errors import ErrorRecord
from ..encoding import encode_json

PATHS = frozenset({"/v1/messages", "/v1/messages/count_tokens"})
# Paths that other clients use too; this header tells who asks.
_SHARED_PATH = "/v1/models"
_VERSION = b"anthropic-version"

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}

ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["type", "error", "request_id"],
    "properties": {
        "type": {"const": "error"},
        "request_id": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "error": {
            "type": "object",
            "required": ["type", "message", "details"],
            "properties": {
                "type": {"type": "string"},
                "message": {"type": "string"},
                "details": {
                    "type": "object",
                    "required": ["error_code"],
                    "properties": {"error_code": {"type": "string"}},
                },
            },
        },
    },
}


def is_anthropics(scope: Scope) -> bool:
    """Whether the request is one of an Anthropic client."""
    path: str = scope["path"]
    if path == _SHARED_PATH or path.startswith(f"{_SHARED_PATH}/"):
        return any(name == _VERSION for name, _ in scope["headers"])
    return path in PATHS


def error_body(record: ErrorRecord, request_id: str | None) -> dict[str, Any]:
    """The JSON body of `record`. The message says the field, for which this shape has no place."""
    fallback = "invalid_request_error" if record.http_status < 500 else "api_error"
    message = record.message
    if record.param and record.param not in message:
        message = f"{record.param}: {message}"
    error = {
        "type": _TYPES.get(record.http_status, fallback),
        "message": message,
        "details": {"error_code": record.code},
    }
    return {"type": "error", "error": error, "request_id": request_id}


class ErrorShapeMiddleware:
    """Rewrites errors on their way to Anthropic's clients, and names the request in the header that these read.

    It stands outside of all that may refuse a request, so that none of it need know who asks.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and is_anthropics(scope):
            send = _Rewriter(send)
        await self._app(scope, receive, send)


class _Rewriter:
    """One response. That of an error is held until all of it is there: it is short."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message | None = None
        self._body = bytearray()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            if request_id := headers.get("x-request-id"):
                headers["request-id"] = request_id
            if message["status"] >= 400 and headers.get("content-type", "").startswith("application/json"):
                self._start = message
                return
        elif self._start is not None:
            self._body += message.get("body", b"")
            if message.get("more_body", False):
                return
            message = {**message, "body": self._rewritten(self._start)}
            await self._send(self._start)
        await self._send(message)

    def _rewritten(self, start: Message) -> bytes:
        headers = MutableHeaders(scope=start)
        error: Mapping[str, Any] = json.loads(self._body)["error"]
        record = ErrorRecord(
            code=error["code"], message=error["message"], http_status=start["status"], param=error["param"]
        )
        body = encode_json(error_body(record, headers.get("request-id")))
        headers["content-length"] = str(len(body))
        return body
