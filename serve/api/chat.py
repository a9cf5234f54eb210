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
from .tool_loop import begin_answer
from .tool_steps import FIELD, ToolEvent, merged, with_gaps, without_tools
from .turn_events import collect_turns

router = APIRouter()


@router.post("/v1/chat/completions", **describe("Answer a conversation.", ChatRequest, streams=True))
async def chat_completions(request: Request) -> Response:
    gateway, context = gateway_of(request), request_context(request)
    body = await read_body(request, ChatRequest)
    calls = await gateway.tools.calls_of(body, context.tenant)
    body = body if calls is None else calls.body
    model = gateway.serve(body.model, body.adapters, context)
    text, dialect = gateway.text, gateway.dialect
    plan = await asyncio.to_thread(plan_chat, body, text, dialect, gateway.settings, gateway.context_length)
    answer, parts = begin_answer(gateway, context, body, plan, model, calls)
    if calls is not None:
        parts = with_gaps(parts)
    head = ReplyHead(f"chatcmpl-{context.id.removeprefix('req_')}", model)
    choices, with_logprobs = body.choices, body.alternatives is not None
    if body.stream:
        chunks = chat_chunks(
            head,
            parts,
            text,
            answer.usage,
            choices=choices,
            with_logprobs=with_logprobs,
            with_usage=body.wants_usage_chunk,
        )
        return await stream_reply(request, gateway, answer, chunks, headers=model.headers)
    steps: list[ToolEvent] = []
    try:
        turns = await until_disconnect(request.receive, collect_turns(without_tools(parts, steps), choices))
    finally:
        await gateway.release(answer, context)
    extra = {} if calls is None else {FIELD: merged(steps)}
    reply = await asyncio.to_thread(
        chat_reply, head, turns, text, answer.usage, with_logprobs=with_logprobs, extra=extra
    )
    return Response(reply, headers=model.headers, media_type="application/json")
