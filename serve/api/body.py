"""A request's JSON body as a checked model. Errors name the exact field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, from_json
from starlette.requests import Request

from ..contract.errors import InvalidRequest
from .errors import UnsupportedMediaType

Model = TypeVar("Model", bound=BaseModel)


async def read_body(request: Request, model: type[Model]) -> Model:
    """The body as `model`. Raises InvalidRequest with `param`, or what the limits say.

    Only `application/json` is taken: a page on another site can send other types without asking first. The parser
    refuses nesting deeper than about 200 by itself.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise UnsupportedMediaType("Send 'Content-Type: application/json'.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
    return parse_body(bytes(body), model)


def parse_body(body: bytes, model: type[Model]) -> Model:
    """`body` as `model`. Raises InvalidRequest."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _explain(error, body) from None


def _explain(error: ValidationError, body: bytes) -> InvalidRequest:
    details = error.errors(include_url=False, include_context=False, include_input=False)
    if details[0]["type"] == "json_invalid":
        return InvalidRequest(f"The body is not valid JSON: {_reason(details[0])}", code="invalid_json")
    document = from_json(body)
    # A union reports one error a member; the one that got furthest into the document is the one that was meant.
    path, detail = max(((_path(one, document), one) for one in details), key=lambda pair: _reach(pair[0]))
    param = format_path(path)
    if not param:
        return InvalidRequest("The body should be a JSON object.")
    if detail["type"] == "missing":
        return InvalidRequest(f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")
    if detail["type"] == "extra_forbidden":
        return InvalidRequest(f"Unknown parameter: '{param}'.", param=param, code="unknown_parameter")
    return InvalidRequest(f"Invalid '{param}': {_reason(detail)}.", param=param, code="invalid_value")


def _reason(detail: ErrorDetails) -> str:
    message = detail["msg"].removeprefix("Invalid JSON: ").removeprefix("Input ")
    return message[:1].lower() + message[1:]


def _path(detail: ErrorDetails, document: Any) -> tuple[int | str, ...]:
    """The error's place in the document: pydantic's own, without the steps that only its unions know."""
    path: list[int | str] = []
    value = document
    for place, step in enumerate(detail["loc"], start=1):
        in_list = isinstance(value, list) and isinstance(step, int) and step < len(value)
        if in_list or (isinstance(value, dict) and step in value):
            value = value[step]
            path.append(step)
        elif detail["type"] == "missing" and isinstance(value, dict) and place == len(detail["loc"]):
            path.append(step)
    return tuple(path)


def _reach(path: Sequence[int | str]) -> tuple[int, ...]:
    """How far into the document a path leads: its depth, then its places in lists."""
    return len(path), *(step for step in path if isinstance(step, int))


def format_path(path: Sequence[int | str]) -> str:
    """A field's path as OpenAI writes it: `messages[0].content`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{step}" if text else step
    return text[:200]
