"""POST /v1/embeddings."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from starlette.responses import Response

from ..contract.errors import ContextLengthExceeded, InvalidRequest
from .body import read_body
from .context import request_context
from .disconnect import until_disconnect
from .encoding import encode_json
from .gateway import gateway_of, prefix_salt
from .openapi import describe
from .pooling import Pooling
from .ports import Text
from .sampling import check_tokens
from .schemas.embeddings import EmbeddingRequest
from .served import ServedModel

router = APIRouter()


@router.post("/v1/embeddings", **describe("Make texts into vectors.", EmbeddingRequest))
async def embeddings(request: Request) -> Response:
    gateway, context = gateway_of(request), request_context(request)
    body = await read_body(request, EmbeddingRequest)
    model = gateway.serve(body.model, body.adapters, context)
    text = gateway.text
    check_dimensions(body, gateway.info.hidden_size)
    prompts = await asyncio.to_thread(encode_inputs, body, text, gateway.context_length)
    pooling = Pooling(
        gateway.engine,
        prompts,
        request_id=context.id,
        salt=prefix_salt(context.tenant, body.cache_salt),
        timeout=gateway.settings.request_timeout,
        adapters=model.uses,
    )
    context.usage = pooling.usage
    gateway.drain.track(pooling)
    try:
        means = await until_disconnect(request.receive, pooling.run())
    finally:
        gateway.drain.forget(pooling)
    reply = await asyncio.to_thread(embedding_reply, means, body, model, pooling.usage.prompt_tokens)
    return Response(reply, headers=model.headers, media_type="application/json")


def check_dimensions(body: EmbeddingRequest, hidden_size: int) -> None:
    """Raises InvalidRequest for fewer dimensions than there are: nothing trained this model to put what matters first,
    so a part of a vector means less than its length suggests."""
    if body.dimensions not in (None, hidden_size):
        raise InvalidRequest(
            f"Vectors of this model have {hidden_size} dimensions, and cannot be shortened; leave 'dimensions' out.",
            param="dimensions",
        )


def encode_inputs(body: EmbeddingRequest, text: Text, context_length: int) -> list[list[int]]:
    """The tokens of every input. Slow for long ones: call it in a thread.

    Raises InvalidRequest and ContextLengthExceeded, naming the input; nothing is ever cut.
    """
    prompts: list[list[int]] = []
    for position, given in enumerate(body.inputs):
        where = "input" if len(body.inputs) == 1 else f"input[{position}]"
        if not given:
            raise InvalidRequest("The input is empty.", param=where)
        prompt = given if isinstance(given, list) else text.encode(given, add_bos=True)
        check_tokens(prompt, text.vocab_size, where)
        if len(prompt) > context_length:
            raise ContextLengthExceeded(
                f"This model's context length is {context_length} tokens, and the input has {len(prompt)}. Nothing is "
                "cut here: send it in parts.",
                param=where,
            )
        prompts.append(prompt)
    return prompts


def embedding_reply(means: Sequence[bytes], body: EmbeddingRequest, model: ServedModel, prompt_tokens: int) -> bytes:
    """The whole reply: each mean made one long, as numbers or as base64 of float32, little-endian."""
    data: list[dict[str, Any]] = []
    for index, mean in enumerate(means):
        vector = normalised(mean)
        shown: Any = vector.tolist()
        if body.encoding_format == "base64":
            shown = base64.b64encode(vector.tobytes()).decode("ascii")
        data.append({"object": "embedding", "index": index, "embedding": shown})
    return encode_json(
        {
            "object": "list",
            "data": data,
            "model": model.name,
            "system_fingerprint": model.fingerprint,
            "usage": {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens},
        }
    )


def normalised(mean: bytes) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """The vector of length 1 in the direction of `mean`, float32 little-endian; zeros stay zeros."""
    vector = np.frombuffer(mean, "<f4").astype(np.float64)
    length = float(np.linalg.norm(vector))
    return (vector / length if length else vector).astype("<f4")
