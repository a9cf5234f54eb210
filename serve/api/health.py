"""GET and HEAD of /livez, /readyz, /version and /metrics. The protocol layer sends no body for a HEAD."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from .encoding import encode_json
from .gateway import Gateway, gateway_of
from .metrics import CONTENT_TYPE
from .openapi import describe

router = APIRouter()


@router.head("/livez", include_in_schema=False)
@router.get("/livez", **describe("Whether the process should be left alone: 503 means restart it."))
async def livez(request: Request) -> Response:
    failed = gateway_of(request).failure is not None
    return _status({"status": "failed" if failed else "alive"}, ok=not failed)


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", **describe("Whether requests can be served now, and how far loading is."))
async def readyz(request: Request) -> Response:
    gateway = gateway_of(request)
    body: dict[str, Any] = {"status": _state(gateway)}
    loading = gateway.engine.loading
    if loading is not None and not gateway.is_ready:
        body |= {"stage": loading.stage, "fraction": loading.fraction}
    return _status(body, ok=gateway.is_ready)


@router.head("/version", include_in_schema=False)
@router.get("/version", **describe("Which version runs."))
async def version(request: Request) -> Response:
    return _status({"version": request.app.version}, ok=True)


@router.head("/metrics", include_in_schema=False)
@router.get("/metrics", **describe("Prometheus metrics.", media_type="text/plain"))
async def metrics(request: Request) -> Response:
    return Response(gateway_of(request).metrics.render(), media_type=CONTENT_TYPE)


def _state(gateway: Gateway) -> str:
    if gateway.drain.is_draining:
        return "draining"
    if gateway.is_ready:
        return "ready"
    if gateway.failure is not None:
        return "failed"
    return "loading" if gateway.engine.is_ready else gateway.engine.state


def _status(body: dict[str, Any], *, ok: bool) -> Response:
    return Response(
        encode_json(body),
        status_code=200 if ok else 503,
        headers={"cache-control": "no-store"},
        media_type="application/json",
    )
