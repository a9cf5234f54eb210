"""Errors as OpenAI's clients expect them: `{"error": {message, type, param, code}}`, and nothing of our insides."""

from __future__ import annotations

import logging
import re
from typing import Any

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from ..contract.errors import ErrorRecord, TunechatError
from .encoding import encode_json

log = logging.getLogger(__name__)

INTERNAL = ErrorRecord(code="internal_error", message="The server failed on this request.", http_status=500)

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "overloaded_error", 503: "unavailable_error"}
_HTTP_CODES = {
    404: ("not_found", "There is nothing at this URL."),
    405: ("method_not_allowed", "This URL does not take this method."),
}
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
# The engine is another process; what it says of itself is checked before a stranger reads it.
_INTERNALS = re.compile(r"""/\w+/|[A-Za-z]:\\|0x[0-9a-fA-F]{6,}|Traceback|File "|\b[A-Z]\w+(?:Error|Exception)\b""")


class MethodNotAllowed(TunechatError):
    code = "method_not_allowed"
    http_status = 405


class RequestTimeout(TunechatError):
    code = "request_timeout"
    http_status = 408


class UnsupportedMediaType(TunechatError):
    code = "unsupported_media_type"
    http_status = 415


class HeadersTooLarge(TunechatError):
    code = "headers_too_large"
    http_status = 431


class GenerationTimeout(TunechatError):
    code = "generation_timeout"
    http_status = 504


def public_record(error: BaseException) -> ErrorRecord:
    """What a client may know of `error`: its own words when they are meant for users, a fixed sentence otherwise."""
    if not isinstance(error, TunechatError) or error.http_status == INTERNAL.http_status:
        return INTERNAL
    record = error.record
    if record.http_status > INTERNAL.http_status and _INTERNALS.search(record.message):
        return ErrorRecord(
            code=record.code,
            message="The engine failed; try again.",
            http_status=record.http_status,
            retry_after=record.retry_after,
        )
    return record


def error_body(record: ErrorRecord) -> dict[str, Any]:
    """The JSON body of `record`."""
    fallback = "invalid_request_error" if record.http_status < 500 else "server_error"
    return {
        "error": {
            "message": record.message,
            "type": _TYPES.get(record.http_status, fallback),
            "param": record.param,
            "code": record.code,
        }
    }


def error_headers(record: ErrorRecord) -> dict[str, str]:
    """The headers that belong to `record` beside the content type."""
    headers = {"cache-control": "no-store"}
    if record.retry_after is not None:
        headers["retry-after"] = str(max(1, int(record.retry_after)))
    if record.http_status == 401:
        headers["www-authenticate"] = "Bearer"
    if record.http_status in {408, 413, 431}:
        # The rest of the request is still on its way and will not be read.
        headers["connection"] = "close"
    return headers


def error_response(record: ErrorRecord, headers: dict[str, str] | None = None) -> Response:
    """A whole response for `record`."""
    return Response(
        encode_json(error_body(record)),
        status_code=record.http_status,
        headers={**error_headers(record), **(headers or {})},
        media_type="application/json",
    )


def install_error_handlers(app: FastAPI) -> None:
    """Makes `app` answer every expected error in OpenAI's shape; unexpected ones are for the request context."""
    app.add_exception_handler(TunechatError, _on_tunechat_error)
    app.add_exception_handler(HTTPException, _on_http_exception)


async def _on_tunechat_error(request: Request, error: Exception) -> Response:
    record = public_record(error)
    if record is INTERNAL:
        log.error("request failed", exc_info=error)
    return error_response(record)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    code, message = _HTTP_CODES.get(error.status_code, ("http_error", "The request cannot be answered."))
    record = ErrorRecord(code=code, message=message, http_status=error.status_code)
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["allow"] = ", ".join(_allowed(request))
    return error_response(record, headers)


def _allowed(request: Request) -> list[str]:
    """The methods that the request's path takes, whichever routes they belong to."""
    return [
        method
        for method in _METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in request.app.routes)
    ]
