"""vLLM's two routes for adapters, with its bodies, its plain-text answers and its status codes."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse, Response

from ..contract.errors import InvalidRequest
from .adapters import unload
from .body import read_body
from .context import request_context
from .folders import named_folder
from .gateway import gateway_of
from .openapi import describe
from .schemas.adapters import LoadLoraRequest, UnloadLoraRequest
from .special_names import name_warnings

router = APIRouter(tags=["adapters"])


@router.post(
    "/v1/load_lora_adapter",
    **describe("Load an adapter from a folder of the server.", LoadLoraRequest, media_type="text/plain"),
)
async def load_lora_adapter(request: Request) -> Response:
    gateway = gateway_of(request)
    body = await read_body(request, LoadLoraRequest)
    context = request_context(request)
    name = gateway.adapters.check_name(body.lora_name)
    if gateway.adapters.view(context.sees).knows(name) and not body.load_inplace:
        raise InvalidRequest(
            f"The adapter '{name}' has already been loaded; 'load_inplace': true makes this a new version of it.",
            param="lora_name",
        )
    folder = await asyncio.to_thread(named_folder, body.lora_path, gateway.settings)
    manifest = await gateway.adapters.publish(name, folder, owner=context.owner)
    warnings = [f"\nWarning: {text}." for text in (*manifest.warnings, *name_warnings(name))]
    return PlainTextResponse(
        f"Success: LoRA adapter '{name}' added successfully.{''.join(warnings)}",
        headers={"x-tunechat-adapter": manifest.ref.id},
    )


@router.post("/v1/unload_lora_adapter", **describe("Unload an adapter.", UnloadLoraRequest, media_type="text/plain"))
async def unload_lora_adapter(request: Request) -> Response:
    body = await read_body(request, UnloadLoraRequest)
    unload(request, body.lora_name)
    return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' removed successfully.")
