"""GET /v1/models and /v1/models/{id}."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from ..adapters.registry import LoadedAdapter
from ..contract.adapters import AdapterState
from .encoding import encode_json
from .gateway import Gateway, gateway_of
from .messages.errors import is_anthropics
from .messages.models import model_info, model_page
from .openapi import describe

router = APIRouter()

_OWNER = "tunechat"


@router.get("/v1/models", **describe("List the models: the base, every adapter, and every version of each."))
async def list_models(request: Request) -> Response:
    gateway = gateway_of(request)
    entries = [_base(gateway), *_adapters(gateway).values()]
    if is_anthropics(request.scope):
        aliases = [{**entries[0], "id": alias} for alias in gateway.settings.model_aliases]
        return _json(model_page([entries[0], *aliases, *entries[1:]], request.query_params))
    return _json({"object": "list", "data": entries})


@router.get("/v1/models/{model:path}", **describe("Describe one model."))
async def retrieve_model(request: Request, model: str) -> Response:
    gateway = gateway_of(request)
    gateway.check_model(model)
    entry = _base(gateway) if model in gateway.names else _adapters(gateway)[model]
    return _json(model_info(entry) if is_anthropics(request.scope) else entry)


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


def _adapters(gateway: Gateway) -> dict[str, dict[str, Any]]:
    """What may be asked for, by id: each name, and then its versions."""
    entries: dict[str, dict[str, Any]] = {}
    served = [one for one in gateway.adapters.roster.all() if one.state is AdapterState.LOADED]
    for one in sorted(served, key=lambda one: (one.ref.name, not one.is_current, one.ref.number)):
        if one.is_current:
            entries[one.ref.name] = _version(gateway, one, one.ref.name)
        entries[one.ref.id] = _version(gateway, one, one.ref.id)
    return entries


def _version(gateway: Gateway, one: LoadedAdapter, name: str) -> dict[str, Any]:
    info = gateway.info
    return {
        "id": name,
        "object": "model",
        "created": gateway.adapters.roster.manifest(one.ref).created,
        "owned_by": _OWNER,
        "parent": gateway.settings.model,
        "root": one.ref.id,
        "state": str(one.state),
        "digest": one.ref.digest,
        "max_model_len": gateway.context_length,
        "quantization": info.quant,
    }


def _json(value: Any) -> Response:
    return Response(encode_json(value), media_type="application/json")
