"""POST /tokenize and /detokenize."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from ..text.dialects import Dialect, read_tools
from .body import read_body
from .context import request_context
from .encoding import encode_json
from .gateway import gateway_of
from .openapi import describe
from .ports import Text
from .sampling import check_tokens
from .schemas.tokenize import DetokenizeRequest, TokenizeRequest
from .turns import for_template, read_choice

router = APIRouter()


@router.post("/tokenize", **describe("Turn a text or a conversation into tokens.", TokenizeRequest))
async def tokenize(request: Request) -> Response:
    gateway = gateway_of(request)
    body = await read_body(request, TokenizeRequest)
    gateway.check_model(body.model, request_context(request))
    reply = await asyncio.to_thread(_tokenize, body, gateway.text, gateway.dialect)
    return _json(reply | {"max_model_len": gateway.context_length})


@router.post("/detokenize", **describe("Turn tokens into text.", DetokenizeRequest))
async def detokenize(request: Request) -> Response:
    gateway = gateway_of(request)
    body = await read_body(request, DetokenizeRequest)
    gateway.check_model(body.model, request_context(request))
    text = gateway.text
    check_tokens(body.tokens, text.vocab_size, "tokens")
    decoded = await asyncio.to_thread(text.decode, body.tokens, skip_special=False)
    return _json({"prompt": decoded})


def _tokenize(body: TokenizeRequest, text: Text, dialect: Dialect) -> dict[str, Any]:
    if body.messages is not None:
        messages, told = for_template(
            body.messages, dialect, read_tools(body.tools or ()), read_choice(body.tool_choice)
        )
        tokens = text.encode_chat(
            messages,
            tools=told,
            add_generation_prompt=not body.continue_final_message
            if body.add_generation_prompt is None
            else body.add_generation_prompt,
            continue_final_message=bool(body.continue_final_message),
            template_kwargs=body.chat_template_kwargs,
        )
    else:
        add_bos = True if body.add_special_tokens is None else body.add_special_tokens
        tokens = text.encode(body.prompt or "", parse_special=bool(body.parse_special), add_bos=add_bos)
    reply: dict[str, Any] = {"tokens": tokens, "count": len(tokens)}
    if body.return_token_strs:
        reply["token_strs"] = [text.token_text(token) for token in tokens]
    return reply


def _json(value: Any) -> Response:
    return Response(encode_json(value), media_type="application/json")
