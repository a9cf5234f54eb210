"""GET /v1/models and /v1/models/{id}."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from .encoding import encode_json
from .gateway import Gateway, gateway_of
from .openapi import describe

router = APIRouter()


@router.get("/v1/models", **describe("List the models."))
async def list_models(request: Request) -> Response:
    return _json({"object": "list", "data": [_model(gateway_of(request))]})


@router.get("/v1/models/{model:path}", **describe("Describe one model."))
async def retrieve_model(request: Request, model: str) -> Response:
    gateway = gateway_of(request)
    gateway.check_model(model)
    return _json(_model(gateway))


def _model(gateway: Gateway) -> dict[str, Any]:
    info = gateway.engine.info
    entry: dict[str, Any] = {
        "id": gateway.settings.model,
        "object": "model",
        "created": gateway.created,
        "owned_by": "tunechat",
    }
    if info is not None:
        entry |= {"max_model_len": gateway.context_length, "quantization": info.quant}
    return entry


def _json(value: Any) -> Response:
    return Response(encode_json(value), media_type="application/json")
