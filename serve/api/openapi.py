"""What `/openapi.json` says of the routes, which read their bodies themselves to bound and explain them."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from .data.request import CheckRequest, PreviewRequest
from .messages.errors import ERROR_SCHEMA as ANTHROPIC_ERROR_SCHEMA
from .schemas.adapters import LoadLoraRequest, UnloadLoraRequest
from .schemas.chat import ChatRequest
from .schemas.completions import CompletionRequest
from .schemas.embeddings import EmbeddingRequest
from .schemas.messages import CountTokensRequest, MessagesRequest
from .schemas.responses import ResponsesRequest
from .schemas.tokenize import DetokenizeRequest, TokenizeRequest
from .tuning.request import CreateJobRequest

_REF = "#/components/schemas/{model}"
_BODIES: tuple[type[BaseModel], ...] = (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    MessagesRequest,
    CountTokensRequest,
    ResponsesRequest,
    TokenizeRequest,
    DetokenizeRequest,
    LoadLoraRequest,
    UnloadLoraRequest,
    CreateJobRequest,
    CheckRequest,
    PreviewRequest,
)
_ERROR_STATUSES = {
    400: "The request is wrong; `param` names the field.",
    401: "No known API key.",
    403: "The request comes from another site, or its key may not do this.",
    404: "There is no such thing.",
    409: "Something else of that name is being changed or used.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body is no JSON.",
    422: "The adapter is no good, and why.",
    429: "The queue is full; come back after `Retry-After` seconds.",
    431: "The request's head is too large.",
    500: "The server failed.",
    503: "The engine is starting, stopping or failed; come back after `Retry-After` seconds.",
    504: "The answer took too long.",
    507: "The disk is full.",
}
_ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                "code": {"type": "string"},
            },
        }
    },
}


def describe(
    summary: str,
    body: type[BaseModel] | None = None,
    *,
    streams: bool = False,
    media_type: str = "application/json",
    uploads: bool = False,
    errors: str = "Error",
) -> dict[str, Any]:
    """Keyword arguments of a route decorator: its body's schema and every answer it may give. `errors` is the schema
    of those that tell of one."""
    answers: dict[str, Any] = {
        media_type: {"schema": {"type": "object"} if "json" in media_type else {"type": "string"}}
    }
    if streams:
        # Readers differ on whether a schema here is one of the stream or of each event.
        answers["text/event-stream"] = {}
    responses: dict[int | str, Any] = {200: {"description": "The answer.", "content": answers}}
    for status, description in _ERROR_STATUSES.items():
        schema = {"$ref": _REF.format(model=errors)}
        responses[status] = {"description": description, "content": {"application/json": {"schema": schema}}}
    extra: dict[str, Any] = {}
    if body is not None:
        schema = {"$ref": _REF.format(model=body.__name__)}
        extra["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    if uploads:
        binary = {"schema": {"type": "string", "format": "binary"}}
        files = {"schema": {"type": "object", "additionalProperties": {"type": "string", "format": "binary"}}}
        extra["requestBody"] = {
            "required": True,
            "content": {"application/zip": binary, "multipart/form-data": files},
        }
        extra["parameters"] = [
            {"name": "activate", "in": "query", "required": False, "schema": {"type": "boolean", "default": True}}
        ]
    return {"summary": summary, "responses": responses, "openapi_extra": extra}


def install_openapi(app: FastAPI) -> None:
    """Makes `app.openapi` describe bodies, errors and keys, once."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, routes=app.routes)
            _, definitions = models_json_schema([(body, "validation") for body in _BODIES], ref_template=_REF)
            components = document.setdefault("components", {})
            schemas = components.setdefault("schemas", {})
            schemas.pop("HTTPValidationError", None)
            schemas.pop("ValidationError", None)
            schemas |= definitions["$defs"] | {"Error": _ERROR_SCHEMA, "AnthropicError": ANTHROPIC_ERROR_SCHEMA}
            components["securitySchemes"] = {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            }
            document["security"] = [{"bearer": []}, {"key": []}, {}]
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
