"""POST /v1/messages and /v1/messages/count_tokens."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace

import msgspec
from fastapi import APIRouter, Request
from sse_starlette.event import ServerSentEvent
from starlette.responses import Response

from ...text.dialects import Dialect
from ..body import read_body
from ..context import RequestContext, request_context
from ..disconnect import until_disconnect
from ..encoding import encode_json, encode_typed_event
from ..errors import public_record
from ..gateway import Gateway, gateway_of
from ..openapi import describe
from ..planning import ChatPlan, encode_prompt, plan_chat
from ..ports import Text
from ..schemas.messages import CountTokensRequest, MessagesRequest
from ..streaming import stream_events
from ..turn_events import turn_events
from ..turns import request_tools
from .errors import error_body
from .events import Event, MessageHead, message_events
from .translation import Chat, as_chat, check_stops
from .usage import Ending
from .whole import whole_message

log = logging.getLogger(__name__)
router = APIRouter()

_PING = {"type": "ping"}
_BEAT = ServerSentEvent('{"type":"ping"}', event="ping", sep="\n")


@router.post(
    "/v1/messages", **describe("Answer a conversation.", MessagesRequest, streams=True, errors="AnthropicError")
)
async def create_message(request: Request) -> Response:
    gateway, context = gateway_of(request), request_context(request)
    body = await read_body(request, MessagesRequest)
    check_stops(body, gateway.settings)
    chat = await asyncio.to_thread(as_chat, body)
    with chat.named():
        model = gateway.serve(body.model, body.adapters, context)
        plan, ending = await asyncio.to_thread(_plan, chat, body.max_tokens, gateway.text, gateway.dialect, gateway)
        generation = gateway.generation(request, plan.sequences, body.cache_salt, model)
        head = MessageHead(
            f"msg_{context.id.removeprefix('req_')}",
            model.name,
            ending,
            omits_thoughts=body.thinking is not None and body.thinking.display == "omitted",
        )
        parts = turn_events(generation.events(), plan.turn.make_parser)
        events = message_events(head, parts, generation.usage)
        if body.stream:
            written = _written(events, chat, context)
            return await stream_events(request, gateway, generation, written, model.headers, _BEAT)
        try:
            reply = await until_disconnect(request.receive, whole_message(events))
        finally:
            await gateway.release(generation, context)
    return Response(reply, headers=model.headers, media_type="application/json")


@router.post(
    "/v1/messages/count_tokens",
    **describe("Count the tokens of a conversation.", CountTokensRequest, errors="AnthropicError"),
)
async def count_tokens(request: Request) -> Response:
    gateway = gateway_of(request)
    body = await read_body(request, CountTokensRequest)
    gateway.check_model(body.model, request_context(request))
    chat = await asyncio.to_thread(as_chat, body)
    with chat.named():
        count = await asyncio.to_thread(_count, chat, gateway.text, gateway.dialect)
    return Response(encode_json({"input_tokens": count}), media_type="application/json")


def _plan(chat: Chat, max_tokens: int, text: Text, dialect: Dialect, gateway: Gateway) -> tuple[ChatPlan, Ending]:
    """The plan of an answer of up to `max_tokens`, or as many as the context has room for."""
    plan = plan_chat(chat.body, text, dialect, gateway.settings, gateway.context_length)
    (sequence,) = plan.sequences
    room = sequence.params.max_tokens
    params = msgspec.structs.replace(sequence.params, max_tokens=min(room, max_tokens))
    return ChatPlan([replace(sequence, params=params)], plan.turn), Ending(fills_context=room < max_tokens)


def _count(chat: Chat, text: Text, dialect: Dialect) -> int:
    return len(encode_prompt(chat.body, request_tools(chat.body), text, dialect))


async def _written(events: AsyncIterator[Event], chat: Chat, context: RequestContext) -> AsyncGenerator[bytes]:
    """`events` as bytes, and a ping behind the first of them; an error becomes the last one."""
    try:
        with chat.named():
            async for event in events:
                yield encode_typed_event(event)
                if event["type"] == "message_start":
                    yield encode_typed_event(_PING)
    except Exception as error:
        record = public_record(error)
        log.warning("stream failed", extra={"request_id": context.id, "code": record.code}, exc_info=error)
        yield encode_typed_event(error_body(record, context.id))
