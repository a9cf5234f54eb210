"""GET /v1/tools."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from .context import request_context
from .encoding import encode_json
from .gateway import gateway_of
from .openapi import describe
from .server_tools import KIND

router = APIRouter()


@router.get("/v1/tools", **describe("List the tools that this key may have the server run."))
async def list_tools(request: Request) -> Response:
    specs = await gateway_of(request).tools.specs(request_context(request).tenant)
    data = [
        {
            "object": "tool",
            "type": KIND,
            "name": spec.name,
            "description": spec.description,
            "parameters": dict(spec.parameters),
            "permission": str(spec.permission),
            "effects": spec.effects,
        }
        for spec in specs
    ]
    return Response(encode_json({"object": "list", "data": data}), media_type="application/json")
