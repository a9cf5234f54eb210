"""POST /v1/completions."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import Response

from .body import read_body
from .completion_stream import completion_chunks, completion_reply
from .context import request_context
from .disconnect import until_disconnect
from .gateway import gateway_of
from .openapi import describe
from .planning import plan_completions
from .replies import ReplyHead, collect
from .schemas.completions import CompletionRequest
from .streaming import stream_reply

router = APIRouter()


@router.post("/v1/completions", **describe("Continue a text.", CompletionRequest, streams=True))
async def completions(request: Request) -> Response:
    gateway, context = gateway_of(request), request_context(request)
    body = await read_body(request, CompletionRequest)
    model = gateway.serve(body.model, body.adapters, context)
    text = gateway.text
    plans = await asyncio.to_thread(plan_completions, body, text, gateway.settings, gateway.context_length)
    generation = gateway.generation(request, plans, body.cache_salt, model)
    head = ReplyHead(f"cmpl-{context.id.removeprefix('req_')}", model)
    with_logprobs = body.logprobs is not None
    if body.stream:
        chunks = completion_chunks(
            head,
            generation.events(),
            text,
            generation.usage,
            with_logprobs=with_logprobs,
            with_usage=body.wants_usage_chunk,
        )
        return await stream_reply(request, gateway, generation, chunks, headers=model.headers)
    try:
        complete = await until_disconnect(request.receive, collect(generation.events(), len(plans)))
    finally:
        await gateway.release(generation, context)
    reply = await asyncio.to_thread(
        completion_reply, head, complete, text, generation.usage, with_logprobs=with_logprobs
    )
    return Response(reply, headers=model.headers, media_type="application/json")
