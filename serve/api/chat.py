"""POST /v1/chat/completions."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import Response

from .body import read_body
from .chat_stream import chat_chunks, chat_reply
from .context import request_context
from .disconnect import until_disconnect
from .gateway import gateway_of
from .openapi import describe
from .planning import plan_chat
from .replies import ReplyHead
from .schemas.chat import ChatRequest
from .streaming import stream_reply
from .turn_events import collect_turns, turn_events

router = APIRouter()


@router.post("/v1/chat/completions", **describe("Answer a conversation.", ChatRequest, streams=True))
async def chat_completions(request: Request) -> Response:
    gateway, context = gateway_of(request), request_context(request)
    body = await read_body(request, ChatRequest)
    model = gateway.serve(body.model, body.adapters, context)
    text, dialect = gateway.text, gateway.dialect
    plan = await asyncio.to_thread(plan_chat, body, text, dialect, gateway.settings, gateway.context_length)
    generation = gateway.generation(request, plan.sequences, body.cache_salt, model)
    parts = turn_events(generation.events(), plan.turn.make_parser)
    head = ReplyHead(f"chatcmpl-{context.id.removeprefix('req_')}", model)
    choices, with_logprobs = body.choices, body.alternatives is not None
    if body.stream:
        chunks = chat_chunks(
            head,
            parts,
            text,
            generation.usage,
            choices=choices,
            with_logprobs=with_logprobs,
            with_usage=body.wants_usage_chunk,
        )
        return await stream_reply(request, gateway, generation, chunks, headers=model.headers)
    try:
        turns = await until_disconnect(request.receive, collect_turns(parts, choices))
    finally:
        await gateway.release(generation, context)
    reply = await asyncio.to_thread(chat_reply, head, turns, text, generation.usage, with_logprobs=with_logprobs)
    return Response(reply, headers=model.headers, media_type="application/json")
