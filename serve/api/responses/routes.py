"""The routes under /v1/responses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from ...contract.errors import Unsupported
from ..body import read_body
from ..context import request_context
from ..disconnect import until_disconnect
from ..encoding import encode_json
from ..gateway import Answer, gateway_of
from ..openapi import describe
from ..planning import plan_chat
from ..schemas.chat import ChatRequest
from ..schemas.responses import ResponsesRequest
from ..served import ServedModel
from ..streaming import stream_events
from ..tool_loop import begin_answer
from ..tool_steps import AnswerPart
from .background import Run
from .desk import desk_of
from .exchange import Exchange
from .items import references
from .output import Output
from .paging import PAGING, page
from .reply import Reply
from .stream import response_events
from .translation import translate

router = APIRouter(tags=["responses"])

_STREAM: list[dict[str, Any]] = [
    {"name": "stream", "in": "query", "required": False, "schema": {"type": "boolean", "enum": [False]}}
]


def _asked(summary: str, query: list[dict[str, Any]]) -> dict[str, Any]:
    described = describe(summary)
    described["openapi_extra"]["parameters"] = query
    return described


@router.post("/v1/responses", **describe("Answer a list of items.", ResponsesRequest, streams=True))
async def create_response(request: Request) -> Response:
    gateway, context, desk = gateway_of(request), request_context(request), desk_of(request)
    body = await read_body(request, ResponsesRequest)
    is_stored = desk.keeper.wants(True if body.background else body.store)
    model = gateway.serve(body.model, body.adapters, context)
    text = gateway.text
    earlier = await desk.earlier(context.tenant, body.previous_response_id)
    stored = await desk.referred(context.tenant, references(body.input))
    asked = await asyncio.to_thread(translate, body, earlier, stored, is_codex=_is_codex(request))
    reply = Reply(f"resp_{context.id.removeprefix('req_')}", model, body, asked.offer.told, is_stored)
    output = Output(text, asked.offer.spaces, scores=body.alternatives is not None)
    exchange = Exchange(reply, context.tenant, earlier, asked.items, output, text, desk.keeper)
    with asked.places.named():
        answer, parts = await _begin(request, asked.chat, model)
        if body.background:
            return await _in_background(request, exchange, answer, parts)
        if body.stream:
            events = response_events(exchange, parts, answer.usage, context.id)
            return await stream_events(request, gateway, answer, events, model.headers)
        try:
            await until_disconnect(request.receive, exchange.read(parts))
        finally:
            await gateway.release(answer, context)
    response = await asyncio.to_thread(encode_json, await exchange.conclude(answer.usage))
    return Response(response, headers=model.headers, media_type="application/json")


async def _begin(request: Request, chat: ChatRequest, model: ServedModel) -> tuple[Answer, AsyncIterator[AnswerPart]]:
    gateway, context = gateway_of(request), request_context(request)
    calls = await gateway.tools.calls_of(chat, context.tenant)
    chat = chat if calls is None else calls.body
    plan = await asyncio.to_thread(
        plan_chat, chat, gateway.text, gateway.dialect, gateway.settings, gateway.context_length
    )
    return begin_answer(gateway, context, chat, plan, model, calls)


async def _in_background(
    request: Request, exchange: Exchange, answer: Answer, parts: AsyncIterator[AnswerPart]
) -> Response:
    """The response that has yet to come. It can be asked for before anybody hears of it."""
    gateway, context = gateway_of(request), request_context(request)
    try:
        announced = await exchange.announce()
    except BaseException:
        await gateway.release(answer, context)
        raise
    # The run counts its tokens itself, and keeps its adapters beyond this request.
    context.usage = None
    desk_of(request).background.start(Run(exchange, answer, context, context.closing.pop_all()), parts)
    return _json(announced, exchange.reply.model.headers)


@router.get("/v1/responses/{response_id}", **_asked("A stored response.", _STREAM))
async def show_response(request: Request, response_id: str) -> Response:
    if request.query_params.get("stream", "false").lower() not in ("false", "0"):
        raise Unsupported("A stored response is not streamed again; ask for it without 'stream'.", param="stream")
    return _json(await desk_of(request).show(request_context(request).tenant, response_id))


@router.delete("/v1/responses/{response_id}", **describe("Remove a response, and what only it holds."))
async def delete_response(request: Request, response_id: str) -> Response:
    await desk_of(request).delete(request_context(request).tenant, response_id)
    return _json({"id": response_id, "object": "response", "deleted": True})


@router.post("/v1/responses/{response_id}/cancel", **describe("End a response that runs in the background."))
async def cancel_response(request: Request, response_id: str) -> Response:
    return _json(await desk_of(request).cancel(request_context(request).tenant, response_id))


@router.get("/v1/responses/{response_id}/input_items", **_asked("The items that a response was asked with.", PAGING))
async def list_input_items(request: Request, response_id: str) -> Response:
    items = await desk_of(request).given(request_context(request).tenant, response_id)
    return _json(page(items, request.query_params))


def _is_codex(request: Request) -> bool:
    """Whether the client says that it is Codex, which offers some tools to every server there is."""
    names = (request.headers.get("originator", ""), request.headers.get("user-agent", ""))
    return any(name.lower().startswith("codex") for name in names)


def _json(value: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(encode_json(value), headers=headers, media_type="application/json")
