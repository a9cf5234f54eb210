"""GET /v1/models, GET and DELETE /v1/models/{id}."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from ..contract.adapters import AdapterRef, AdapterState
from ..contract.errors import ModelNotFound, TunechatError
from .context import request_context
from .encoding import encode_json
from .gateway import Gateway, gateway_of
from .messages.errors import is_anthropics
from .messages.models import model_info, model_page
from .openapi import describe
from .removal import discard
from .view import View

router = APIRouter()

_OWNER = "tunechat"


@router.get("/v1/models", **describe("List the models: the base, adapters, their versions, and what jobs made."))
async def list_models(request: Request) -> Response:
    gateway = gateway_of(request)
    entries = [_base(gateway), *_adapters(gateway, gateway.adapters.view(request_context(request).sees))]
    if is_anthropics(request.scope):
        aliases = [{**entries[0], "id": alias} for alias in gateway.settings.model_aliases]
        return _json(model_page([entries[0], *aliases, *entries[1:]], request.query_params))
    return _json({"object": "list", "data": entries})


@router.get("/v1/models/{model:path}", **describe("Describe one model."))
async def retrieve_model(request: Request, model: str) -> Response:
    gateway = gateway_of(request)
    context = request_context(request)
    gateway.check_model(model, context)
    found = gateway.adapters.view(context.sees).find(model)
    entry = _base(gateway) if found is None else _version(gateway, found, model)
    return _json(model_info(entry) if is_anthropics(request.scope) else entry)


@router.delete("/v1/models/{model:path}", **describe("Remove a fine-tuned model of one's own."))
async def delete_model(request: Request, model: str) -> Response:
    gateway, adapters = gateway_of(request), gateway_of(request).adapters
    try:
        meant = adapters.view(request_context(request).owns).meaning(model)
    except TunechatError as error:
        raise gateway.missing(model) from error
    try:
        await discard(adapters, meant)
    except ModelNotFound as error:
        raise gateway.missing(model) from error
    return _json({"id": model, "object": "model", "deleted": True})


def _base(gateway: Gateway) -> dict[str, Any]:
    name, info = gateway.settings.model, gateway.engine.info
    entry: dict[str, Any] = {
        "id": name,
        "object": "model",
        "created": gateway.created,
        "owned_by": _OWNER,
        "parent": None,
        "root": name,
        "state": str(AdapterState.LOADED if gateway.is_ready else AdapterState.LOADING),
    }
    if info is not None:
        entry |= {
            "digest": info.weights_fingerprint.rpartition(":")[2],
            "max_model_len": gateway.context_length,
            "quantization": info.quant,
        }
    if gateway.is_ready:
        entry["tool_dialect"] = gateway.dialect.name
    return entry


def _adapters(gateway: Gateway, view: View) -> list[dict[str, Any]]:
    """What may be asked for: each name, then its versions; and at the end what jobs have made."""
    entries = []
    for one in sorted(view.served(), key=lambda one: (one.ref.name, not one.is_current, one.ref.number)):
        if one.is_current:
            entries.append(_version(gateway, one.ref, one.ref.name))
        entries.append(_version(gateway, one.ref, one.ref.id))
    return entries + [_version(gateway, ref, name) for name, ref in view.tuned()]


def _version(gateway: Gateway, ref: AdapterRef, name: str) -> dict[str, Any]:
    info = gateway.info
    return {
        "id": name,
        "object": "model",
        "created": gateway.adapters.roster.manifest(ref).created,
        "owned_by": _OWNER,
        "parent": gateway.settings.model,
        "root": ref.id,
        "state": str(AdapterState.LOADED),
        "digest": ref.digest,
        "max_model_len": gateway.context_length,
        "quantization": info.quant,
    }


def _json(value: Any) -> Response:
    return Response(encode_json(value), media_type="application/json")
