"""A chat that the server has with its own model, by the path that requests take."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...contract.errors import ContextLengthExceeded
from ..body import parse_body
from ..context import RequestContext
from ..gateway import Gateway
from ..planning import ChatPlan, plan_chat
from ..schemas.chat import ChatRequest
from ..turn_events import Turn, collect_turns, turn_events


@dataclass(frozen=True, slots=True)
class Reply:
    """A turn, and `model`, the weights that gave it as replies name them."""

    model: str
    turn: Turn


async def ask(gateway: Gateway, tenant: str, fields: Mapping[str, Any]) -> Reply:
    """The answer to the chat request `fields`, as `tenant` would get it.

    A token limit that the context has no room for gives way to the context's. Raises what a request would be refused
    with, InvalidRequest, ModelNotFound and Unavailable among others, and what can end one.
    """
    body = parse_body(json.dumps(dict(fields)).encode(), ChatRequest)
    context = RequestContext(tenant=tenant)
    with context.closing:
        model = gateway.serve(body.model, body.adapters, context)
        plan = await _plan(gateway, body)
        generation = gateway.begin(context, plan.sequences, body.cache_salt, model)
        gateway.track(generation, context)
        try:
            (turn,) = await collect_turns(turn_events(generation.events(), plan.turn.make_parser), 1)
        finally:
            await gateway.release(generation, context)
            gateway.metrics.count_usage(generation.usage)
            gateway.metrics.count_adapters(context.adapters, generation.usage, context.time_to_first_token)
    return Reply(model.name, turn)


async def _plan(gateway: Gateway, body: ChatRequest) -> ChatPlan:
    def plan(body: ChatRequest) -> ChatPlan:
        return plan_chat(body, gateway.text, gateway.dialect, gateway.settings, gateway.context_length)

    try:
        return await asyncio.to_thread(plan, body)
    except ContextLengthExceeded:
        return await asyncio.to_thread(plan, body.model_copy(update={"max_tokens": None}))
