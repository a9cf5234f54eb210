"""The routes under /v1/adapters: what is stored and served, and everything that changes it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from ..adapters.names import parse_id
from ..adapters.store import StoredAdapter, no_adapter
from ..contract.adapters import AdapterManifest
from ..contract.errors import InvalidAdapter, InvalidRequest
from .adapter_records import Look, adapter_record, quarantined_record, version_record
from .archive import packed
from .context import request_context
from .encoding import encode_json
from .gateway import Gateway, gateway_of
from .openapi import describe

router = APIRouter(tags=["adapters"])

_FLAGS = {"true": True, "1": True, "false": False, "0": False}


@router.get("/v1/adapters", **describe("List the adapters: stored, served, and refused."))
async def list_adapters(request: Request) -> Response:
    gateway = gateway_of(request)
    stored = await asyncio.to_thread(gateway.adapters.store.all)
    look, sees = _look(gateway), request_context(request).sees
    held = () if gateway.quarantine is None else gateway.quarantine.all()
    return _json(
        {
            "object": "list",
            "data": [adapter_record(one, look) for one in stored if sees(one.owner)],
            "quarantined": [quarantined_record(one) for one in held],
        }
    )


@router.get("/v1/adapters/{adapter}", **describe("Describe an adapter, or one version of it."))
async def show_adapter(request: Request, adapter: str) -> Response:
    gateway, stored = gateway_of(request), await _seen(request, adapter)
    if adapter == stored.name:
        return _json(adapter_record(stored, _look(gateway)))
    manifest = await asyncio.to_thread(gateway.adapters.store.show, adapter)
    return await _version(request, manifest)


@router.post("/v1/adapters/{adapter}", **describe("Upload an adapter as a new version.", uploads=True))
async def upload_adapter(request: Request, adapter: str) -> Response:
    gateway = gateway_of(request)
    activate = _flag(request, "activate", default=True)
    owner = gateway.adapters.check_free(adapter, request_context(request).owner)
    async with gateway.uploads.receive(request) as folder:
        manifest = await gateway.adapters.publish(adapter, folder, activate=activate, owner=owner)
    return await _version(request, manifest)


@router.get("/v1/adapters/{adapter}/download", **describe("A version as a zip.", media_type="application/zip"))
async def download_adapter(request: Request, adapter: str) -> Response:
    await _seen(request, adapter)
    store = gateway_of(request).adapters.store
    manifest = await asyncio.to_thread(store.show, adapter)
    files = await asyncio.to_thread(_opened, store.folder(manifest), (*manifest.files, "manifest.json"))
    headers = {"content-disposition": f'attachment; filename="{manifest.ref.id}.zip"'}
    return StreamingResponse(packed(files), media_type="application/zip", headers=headers)


@router.post("/v1/adapters/{adapter}/load", **describe("Serve a stored adapter again, and read it into memory."))
async def load_adapter(request: Request, adapter: str) -> Response:
    await _seen(request, adapter)
    return await _version(request, await gateway_of(request).adapters.load(adapter))


@router.post("/v1/adapters/{adapter}/unload", **describe("Serve an adapter no longer; running requests finish."))
async def unload_adapter(request: Request, adapter: str) -> Response:
    draining = unload(request, adapter)
    return _json({"object": "adapter.unloaded", "id": adapter, "draining": list(draining)})


@router.post("/v1/adapters/{adapter}/rollback", **describe("Let the name mean what it meant before."))
async def rollback_adapter(request: Request, adapter: str) -> Response:
    await _seen(request, adapter)
    return await _version(request, await gateway_of(request).adapters.rollback(adapter))


@router.post("/v1/adapters/{adapter}/activate", **describe("Let the name mean this version."))
async def activate_adapter(request: Request, adapter: str) -> Response:
    await _seen(request, adapter)
    return await _version(request, await gateway_of(request).adapters.activate(adapter))


@router.post("/v1/adapters/{adapter}/pin", **describe("Keep a version stored, and in its slot once it is there."))
async def pin_adapter(request: Request, adapter: str) -> Response:
    await _seen(request, adapter)
    return await _version(request, await gateway_of(request).adapters.pin(adapter, True))


@router.post("/v1/adapters/{adapter}/unpin", **describe("Let a pinned version go again."))
async def unpin_adapter(request: Request, adapter: str) -> Response:
    await _seen(request, adapter)
    return await _version(request, await gateway_of(request).adapters.pin(adapter, False))


@router.post("/v1/adapters/{adapter}/verify", **describe("Compare a version's files with their hashes."))
async def verify_adapter(request: Request, adapter: str) -> Response:
    await _seen(request, adapter)
    manifest = await gateway_of(request).adapters.verify(adapter)
    return await _version(request, manifest, verified=True)


@router.delete("/v1/adapters/{adapter}", **describe("Remove an adapter, or one version of it, from the disk."))
async def delete_adapter(request: Request, adapter: str) -> Response:
    await _seen(request, adapter)
    gone = await gateway_of(request).adapters.remove(adapter)
    removed = [manifest.ref.id for manifest in gone]
    return _json({"object": "adapter.deleted", "id": adapter, "deleted": True, "removed": removed})


def unload(request: Request, adapter: str) -> tuple[str, ...]:
    """Unloads what the request may see. Raises ModelNotFound for all else."""
    parse_id(adapter)
    adapters = gateway_of(request).adapters
    return adapters.unload(adapters.view(request_context(request).sees).meaning(adapter))


async def _seen(request: Request, adapter: str) -> StoredAdapter:
    """All that is stored under the name of `adapter`. Raises ModelNotFound for what the request may not see, too."""
    name, _ = parse_id(adapter)
    stored = await asyncio.to_thread(gateway_of(request).adapters.store.of, name)
    if not request_context(request).sees(stored.owner):
        raise no_adapter(name)
    return stored


async def _version(request: Request, manifest: AdapterManifest, **more: Any) -> Response:
    gateway = gateway_of(request)
    request_context(request).model = manifest.ref.id
    stored: StoredAdapter = await asyncio.to_thread(gateway.adapters.store.of, manifest.name)
    return _json(version_record(manifest, stored, _look(gateway)) | more)


def _look(gateway: Gateway) -> Look:
    return Look.of(gateway.adapters.roster.all(), gateway.engine.stats.adapters, gateway.adapters.problems)


def _opened(folder: Path, names: Iterable[str]) -> list[tuple[str, BinaryIO]]:
    """The files, open, so that a version that is removed meanwhile is still sent whole."""
    with ExitStack() as stack:
        try:
            files = [(name, stack.enter_context((folder / Path(name).name).open("rb"))) for name in names]
        except OSError as error:
            raise InvalidAdapter("a file of this version is gone; load the adapter again") from error
        stack.pop_all()
    return [(name, file) for name, file in files]


def _flag(request: Request, name: str, *, default: bool) -> bool:
    text = request.query_params.get(name)
    if text is None:
        return default
    if text.lower() not in _FLAGS:
        raise InvalidRequest(f"'{name}' is true or false.", param=name, code="invalid_value")
    return _FLAGS[text.lower()]


def _json(value: Any) -> Response:
    return Response(encode_json(value), media_type="application/json")
